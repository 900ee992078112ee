//! The preset dictionary of format 1: what clients usually say in `initialize`, so that saying it costs a few bits.
//!
//! It belongs to the format byte: one changed character makes every token unreadable (a test pins its sum). Names and
//! versions come from what the clients announce; deflate finds what stands late in it cheapest, so the most frequent
//! comes last. Deflate looks back 32 KiB at most (RFC 1951 section 2).

/// Set in the compressor and in the decompressor before the first byte.
pub(super) const DICTIONARY: &[u8] = concat!(
    // Rare members and words.
    r#","_meta":{"progressToken":"#,
    r#","experimental":{"io.modelcontextprotocol/"#,
    r#","context":{},"tools":{}},"sampling":{"context":{},"tools":{}},"elicitation":{"form":{"applyDefaults":true},"#,
    r#"An example MCP client application"#,
    r#"Model Context Protocol client for the terminal, the desktop, the browser and the editor"#,
    r#"AI coding assistant agent code editor chat command line SDK inspector"#,
    r#","icons":[{"src":"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAA"#,
    r#","icons":[{"src":"data:image/svg+xml;base64,PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmci"#,
    r#"","sizes":"any"}]","sizes":["48x48"],"theme":"light"},{"src":"https://www."#,
    r#".com/favicon.ico","mimeType":"image/x-icon"/logo.svg","mimeType":"image/svg+xml"/icon.png","mimeType":"image/png","sizes":["any"]"#,
    r#","theme":"dark"}],"websiteUrl":"https://github.com/modelcontextprotocol/.dev.org.io.ai/docs"#,
    // Clients by name.
    r#"{"name":"example-client","version":"1.0.0"{"name":"test-client","version":"0.0.1""#,
    r#"{"name":"librechat","version":"1.0"{"name":"n8n{"name":"Zed","version":"0.2"{"name":"goose","version":"1."#,
    r#"{"name":"LM Studio{"name":"continue-client{"name":"Cline","version":"3.{"name":"Roo Code","version":"3."#,
    r#"{"name":"windsurf-client","version":"1.0.0"{"name":"opencode","version":"1.{"name":"jetbrains"#,
    r#"{"name":"gemini-cli-mcp-client","version":"0.{"name":"openai-mcp","version":"1.0.0""#,
    r#"{"name":"codex-mcp-client","title":"Codex","version":"0."#,
    r#"{"name":"mcp-remote (via mcp-remote 0.1.{"name":"mcp-client","version":"1.0.0"{"name":"fastmcp"#,
    r#"{"name":"rmcp","version":"1.{"name":"go-sdk{"name":"mcp-inspector{"name":"inspector-client","version":"0."#,
    r#"{"name":"cursor-vscode","version":"1.0.0"{"name":"Cursor{"name":"GitHub Copilot{"name":"copilot-developer-cli"#,
    r#"{"name":"Anthropic/ClaudeAI","version":"1.0.0"{"name":"claude-ai","version":"0.1.0""#,
    r#"{"name":"claude-code","title":"Claude Code","version":"2.1.0","#,
    r#""description":"Anthropic's agentic coding tool","websiteUrl":"https://claude.com/claude-code""#,
    r#"{"name":"Visual Studio Code - Insiders","version":"1.1-insider""#,
    // Whole texts of usual clients.
    r#"{"protocolVersion":"2024-11-05","capabilities":{"tools":{},"resources":{},"prompts":{}},"clientInfo":{"name":"client","#,
    r#"{"protocolVersion":"2025-03-26","capabilities":{"sampling":{},"roots":{"listChanged":true}},"clientInfo":{"name":"mcp","version":"0.1.0"}}"#,
    r#"{"capabilities":{"roots":{}},"clientInfo":{"name":"mcp-client","version":"1.0.0"},"protocolVersion":"2025-11-25"}"#,
    r#"{"protocolVersion":"2025-06-18","capabilities":{"roots":{"listChanged":false},"sampling":{},"elicitation":{}},"clientInfo":{"#,
    r#"{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"mcp","version":"0.1.0"}}"#,
    r#"{"protocolVersion":"2025-11-25","capabilities":{"roots":{"listChanged":true},"sampling":{},"elicitation":{"form":{},"url":{}},"#,
    r#""tasks":{"list":{},"cancel":{},"requests":{"sampling":{"createMessage":{}},"elicitation":{"create":{}}}},"#,
    r#""extensions":{"io.modelcontextprotocol/ui":{"mimeTypes":["text/html;profile=mcp-app"]}}},"#,
    r#""clientInfo":{"name":"Visual Studio Code","title":"Visual Studio Code","version":"1.10","#,
    r#""description":"Code editing. Redefined.","websiteUrl":"https://code.visualstudio.com","#,
    r#""icons":[{"src":"https://code.visualstudio.com/favicon.ico","mimeType":"image/png","sizes":["any"]}]}}"#,
)
.as_bytes();
