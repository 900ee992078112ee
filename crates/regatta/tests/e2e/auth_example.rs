//! The example of docs/auth.md does what the page says it does, as it is written there but for the ports.

use crate::REGATTA;
use regatta_testkit::process::free_port;
use std::path::Path;
use std::process::Command;

const PAGE: &str = include_str!("../../../../docs/auth.md");

#[test]
fn the_example_of_the_page_prints_what_the_page_says() {
    let script = PAGE.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let script = script.replace("8080", &free_port().to_string()).replace("3001", &free_port().to_string());
    let directory = tempfile::TempDir::new().expect("a directory");
    let bin = Path::new(REGATTA).parent().expect("a folder").display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap_or_default());
    let mut example = Command::new("bash");
    let done = example.arg("-c").arg(&script).current_dir(directory.path()).env("PATH", path).output();
    let done = done.expect("bash runs; the example needs openssl 3 and curl as well");
    let said = String::from_utf8_lossy(&done.stdout);
    for line in [
        "nobody:       HTTP/1.1 401 Unauthorized",
        "www-authenticate: Bearer resource_metadata=\"http://127.0.0.1:",
        "alice:        HTTP/1.1 200 OK",
        "ci:           HTTP/1.1 200 OK",
        "a bad token:  HTTP/1.1 401 Unauthorized",
        "no scope:     HTTP/1.1 403 Forbidden",
        "{\"authorization_servers\":[\"https://login.example\"]",
    ] {
        assert!(said.contains(line), "no {line:?} in:\n{said}\n{}", String::from_utf8_lossy(&done.stderr));
    }
}
