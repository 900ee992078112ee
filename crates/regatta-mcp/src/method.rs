//! The methods that the gateway knows, of both eras, and what is true of each.
//!
//! Anything else is [`Method::Other`]: forwarded by its text, judged by the server.

/// A JSON-RPC method of MCP that a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is the method of the same name; as_str is the table")]
pub enum Method {
    Initialize,
    Ping,
    ServerDiscover,
    SubscriptionsListen,
    ToolsList,
    ToolsCall,
    ResourcesList,
    ResourcesTemplatesList,
    ResourcesRead,
    ResourcesSubscribe,
    ResourcesUnsubscribe,
    PromptsList,
    PromptsGet,
    CompletionComplete,
    LoggingSetLevel,
    TasksGet,
    TasksUpdate,
    TasksCancel,
    TasksList,
    TasksResult,
    NotificationInitialized,
    NotificationCancelled,
    NotificationProgress,
    NotificationRootsListChanged,
    /// Any other text.
    Other,
}

/// Which member of `params` the `Mcp-Name` header repeats (2026-07-28, Streamable HTTP, Standard Request
/// Headers; for tasks SEP-2663).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameSource {
    /// The method has no `Mcp-Name`.
    None,
    /// `params.name`
    Name,
    /// `params.uri`
    Uri,
    /// `params.taskId`
    TaskId,
}

impl Method {
    /// The method as it is written on the wire; `"other"` for [`Method::Other`] (a safe metric label).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::Ping => "ping",
            Self::ServerDiscover => "server/discover",
            Self::SubscriptionsListen => "subscriptions/listen",
            Self::ToolsList => "tools/list",
            Self::ToolsCall => "tools/call",
            Self::ResourcesList => "resources/list",
            Self::ResourcesTemplatesList => "resources/templates/list",
            Self::ResourcesRead => "resources/read",
            Self::ResourcesSubscribe => "resources/subscribe",
            Self::ResourcesUnsubscribe => "resources/unsubscribe",
            Self::PromptsList => "prompts/list",
            Self::PromptsGet => "prompts/get",
            Self::CompletionComplete => "completion/complete",
            Self::LoggingSetLevel => "logging/setLevel",
            Self::TasksGet => "tasks/get",
            Self::TasksUpdate => "tasks/update",
            Self::TasksCancel => "tasks/cancel",
            Self::TasksList => "tasks/list",
            Self::TasksResult => "tasks/result",
            Self::NotificationInitialized => "notifications/initialized",
            Self::NotificationCancelled => "notifications/cancelled",
            Self::NotificationProgress => "notifications/progress",
            Self::NotificationRootsListChanged => "notifications/roots/list_changed",
            Self::Other => "other",
        }
    }

    /// The method of exactly this text (case-sensitive).
    #[expect(clippy::should_implement_trait, reason = "never fails, unlike FromStr")]
    pub fn from_str(text: &str) -> Self {
        match text {
            "initialize" => Self::Initialize,
            "ping" => Self::Ping,
            "server/discover" => Self::ServerDiscover,
            "subscriptions/listen" => Self::SubscriptionsListen,
            "tools/list" => Self::ToolsList,
            "tools/call" => Self::ToolsCall,
            "resources/list" => Self::ResourcesList,
            "resources/templates/list" => Self::ResourcesTemplatesList,
            "resources/read" => Self::ResourcesRead,
            "resources/subscribe" => Self::ResourcesSubscribe,
            "resources/unsubscribe" => Self::ResourcesUnsubscribe,
            "prompts/list" => Self::PromptsList,
            "prompts/get" => Self::PromptsGet,
            "completion/complete" => Self::CompletionComplete,
            "logging/setLevel" => Self::LoggingSetLevel,
            "tasks/get" => Self::TasksGet,
            "tasks/update" => Self::TasksUpdate,
            "tasks/cancel" => Self::TasksCancel,
            "tasks/list" => Self::TasksList,
            "tasks/result" => Self::TasksResult,
            "notifications/initialized" => Self::NotificationInitialized,
            "notifications/cancelled" => Self::NotificationCancelled,
            "notifications/progress" => Self::NotificationProgress,
            "notifications/roots/list_changed" => Self::NotificationRootsListChanged,
            _ => Self::Other,
        }
    }

    /// Whether the protocol defines it as a read, so that a lost one may be sent again (DESIGN 5.2).
    pub fn is_read(self) -> bool {
        match self {
            Self::Ping
            | Self::ServerDiscover
            | Self::ToolsList
            | Self::ResourcesList
            | Self::ResourcesTemplatesList
            | Self::ResourcesRead
            | Self::PromptsList
            | Self::PromptsGet
            | Self::CompletionComplete
            | Self::TasksGet
            | Self::TasksList
            | Self::TasksResult => true,
            Self::Initialize
            | Self::SubscriptionsListen
            | Self::ToolsCall
            | Self::ResourcesSubscribe
            | Self::ResourcesUnsubscribe
            | Self::LoggingSetLevel
            | Self::TasksUpdate
            | Self::TasksCancel
            | Self::NotificationInitialized
            | Self::NotificationCancelled
            | Self::NotificationProgress
            | Self::NotificationRootsListChanged
            | Self::Other => false,
        }
    }

    /// Where the value of its `Mcp-Name` header comes from.
    pub fn name_source(self) -> NameSource {
        match self {
            Self::ToolsCall | Self::PromptsGet => NameSource::Name,
            Self::ResourcesRead => NameSource::Uri,
            Self::TasksGet | Self::TasksUpdate | Self::TasksCancel => NameSource::TaskId,
            Self::Initialize
            | Self::Ping
            | Self::ServerDiscover
            | Self::SubscriptionsListen
            | Self::ToolsList
            | Self::ResourcesList
            | Self::ResourcesTemplatesList
            | Self::ResourcesSubscribe
            | Self::ResourcesUnsubscribe
            | Self::PromptsList
            | Self::CompletionComplete
            | Self::LoggingSetLevel
            | Self::TasksList
            | Self::TasksResult
            | Self::NotificationInitialized
            | Self::NotificationCancelled
            | Self::NotificationProgress
            | Self::NotificationRootsListChanged
            | Self::Other => NameSource::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Method;

    #[test]
    fn names_are_matched_exactly() {
        assert_eq!(Method::from_str("tools/call"), Method::ToolsCall);
        assert_eq!(Method::from_str(Method::TasksUpdate.as_str()), Method::TasksUpdate);
        assert_eq!(Method::from_str("TOOLS/CALL"), Method::Other);
        assert_eq!(Method::from_str("tools/call "), Method::Other);
        assert_eq!(Method::from_str("other"), Method::Other);
    }
}
