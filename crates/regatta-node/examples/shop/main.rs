//! A shop: `products`, `new_cart`, `add`, `cart`, `order`, `checkout`. The cart is data of the session, or of a handle where
//! the client has none; `add`, `order` and `checkout` are never run twice for one call. `checkout` asks its client for an
//! address. Orders are lines of the file `SHOP_ORDERS`, which stands for a database.
mod checkout;

use std::io::Write as _;

use regatta_node::{Data, Node, handles, session_data};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, JsonObject, ServerCapabilities,
    ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};

struct Shop;

fn wrong(why: impl ToString) -> ErrorData {
    ErrorData::invalid_params(why.to_string(), None)
}

fn text<'a>(arguments: &'a JsonObject, name: &str) -> Result<&'a str, ErrorData> {
    arguments.get(name).and_then(|value| value.as_str()).ok_or_else(|| wrong(format!("{name} is missing")))
}

/// The caller's cart: named by a handle, or the session's.
async fn cart(arguments: &JsonObject, context: &RequestContext<RoleServer>) -> Result<Data, ErrorData> {
    match arguments.get("cart").and_then(|name| name.as_str()) {
        Some(name) => {
            let handles = handles(&context.extensions).ok_or_else(|| wrong("no node"))?;
            handles.open(name).await.map_err(wrong)?.ok_or_else(|| wrong("no such cart"))
        }
        None => session_data(&context.extensions).ok_or_else(|| wrong("cart is missing")),
    }
}

/// As slow as a payment.
async fn pause(arguments: &JsonObject) {
    let pause = arguments.get("pause_ms").and_then(|pause| pause.as_u64()).unwrap_or_default();
    tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
}

/// Bytes of an order in the file. A kill stops a write at the end of a page, if anywhere; no record of this size lies across one,
/// so that each is there or is not.
const RECORD: usize = 64;

fn place_order(number: &str, items: &[String]) -> std::io::Result<()> {
    let record = format!("{:<width$}\n", format!("{number} {}", items.len()), width = RECORD - 1);
    if record.len() > RECORD {
        return Err(std::io::Error::other("the number is too long"));
    }
    let file = std::env::var("SHOP_ORDERS").unwrap_or_else(|_| "orders.txt".to_owned());
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file)?;
    file.write_all(record.as_bytes())
}

async fn call(
    tool: &str,
    arguments: &JsonObject,
    context: &RequestContext<RoleServer>,
) -> Result<String, ErrorData> {
    match tool {
        "products" => Ok("anchor,rope,sail".to_owned()),
        "new_cart" => Ok(handles(&context.extensions).ok_or_else(|| wrong("no node"))?.create().0),
        "add" => {
            let item = text(arguments, "item")?;
            let add = |held: Option<Vec<String>>| {
                let mut items = held.unwrap_or_default();
                items.push(item.to_owned());
                items
            };
            Ok(cart(arguments, context).await?.update("items", add).await.map_err(wrong)?.join(","))
        }
        "cart" => {
            let items: Option<Vec<String>> =
                cart(arguments, context).await?.get("items").await.map_err(wrong)?;
            Ok(items.unwrap_or_default().join(","))
        }
        "order" => {
            let cart = cart(arguments, context).await?;
            let items: Vec<String> = cart.get("items").await.map_err(wrong)?.unwrap_or_default();
            place_order(text(arguments, "number")?, &items).map_err(wrong)?;
            pause(arguments).await;
            if !arguments.contains_key("keep") {
                cart.remove("items").await.map_err(wrong)?;
            }
            Ok(items.join(","))
        }
        other => Err(wrong(format!("no tool {other}"))),
    }
}

impl ServerHandler for Shop {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if request.name == "checkout" {
            return checkout::call(request, &context).await;
        }
        let told = call(&request.name, &request.arguments.unwrap_or_default(), &context).await?;
        Ok(CallToolResult::success(vec![ContentBlock::text(told)]).into())
    }
}

fn main() -> Result<(), regatta_node::NotStarted> {
    Node::named("shop").once("add").once("order").once("checkout").run(|| Shop)
}
