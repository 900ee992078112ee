//! How a start fails: with every reason at once, the right exit code, and nothing on stdout.

use crate::REGATTA;
use regatta_testkit::gateway::{Gateway, Plan};
use regatta_testkit::process::Demo;
use std::path::Path;
use std::process::Command;

/// Code and stderr of a start that is expected to fail at once.
fn ends(command: &str, config: &Path) -> (Option<i32>, String) {
    let output = Command::new(REGATTA).arg(command).arg("--config").arg(config).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn check_and_serve_say_the_same_about_a_bad_config_and_end_with_2() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let file = directory.path().join("regatta.toml");
    std::fs::write(&file, "[gateway]\ninflight_max = 0\nlisten = true\n").expect("written");
    let (code, said) = ends("check", &file);
    assert_eq!(code, Some(2));
    for part in [":2: gateway.inflight_max = 0", ":3: gateway.listen = true", "no [[server]] is configured"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(ends("serve", &file), (Some(2), said));
    assert_eq!(ends("serve", &directory.path().join("none.toml")).0, Some(2));
}

#[tokio::test]
async fn a_taken_port_and_a_taken_state_directory_end_with_1_and_a_hint() {
    let demo = Demo::start(REGATTA, &[]).await;
    let gateway = Gateway::start(REGATTA, Plan::over([demo.url.clone()])).await;
    let (code, said) = ends("serve", &gateway.config());
    assert_eq!(code, Some(1));
    assert!(said.contains("cannot listen on") && said.contains("hint: "), "{said}");

    let text = std::fs::read_to_string(gateway.config()).expect("a config");
    let elsewhere: Vec<&str> =
        text.lines().filter(|line| !line.starts_with("listen") && !line.starts_with("admin")).collect();
    let text =
        elsewhere.join("\n").replacen("[gateway]", "[gateway]\nlisten = \"127.0.0.1:0\"\nadmin = \"off\"", 1);
    let file = gateway.config().with_file_name("second.toml");
    std::fs::write(&file, text).expect("written");
    let (code, said) = ends("serve", &file);
    assert_eq!(code, Some(1));
    assert!(said.contains("is in use by another gateway"), "{said}");
}
