//! An ingress gateway as users of Istio have it: their Deployment, which injection completes, called from outside the cluster.
//!
//! Invariant: the cluster is left as it was found (what `uninstall` leaves is the step `install`'s to prove).

use super::bed::Bed;
use super::command::{output, output_of};
use super::enter;
use super::install::{PATIENCE, succeeded};
use crate::tally::Tally;
use anyhow::{Context as _, ensure};
use std::process::Stdio;
use std::time::{Duration, Instant};

const GATEWAY: &str = "testbed/manifests/ingress.yaml";
const BEHIND: &str = "testbed/manifests/ingress-shop.yaml";
/// Port of the gateway's Service; its pod listens on 80.
const PORT: u16 = 8080;
const HOST: &str = "store.example.com";
/// What the proxy cannot do yet is not taken in silence.
const TLS: &str = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: tls, namespace: edge}\nspec:\n  selector: {istio: ingressgateway}\n  servers:\n  - port: {number: 443, name: https, protocol: HTTPS}\n    hosts: [store.example.com]\n    tls: {mode: SIMPLE, credentialName: store}\n";

/// The step of the suite.
pub fn run(bed: &Bed) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let said = enter::fairlead(bed)?.args(["install", "--context", "c1", "--cluster", "east"]).output()?;
    tally.note("install", succeeded(&said));
    let result = facts(bed, &mut tally);
    kubectl(bed, &["delete", "namespace", "edge", "storefront", "--ignore-not-found", "--timeout=60s"])?;
    let said = enter::fairlead(bed)?.args(["uninstall", "--context", "c1", "--crds"]).output()?;
    tally.note("uninstall", succeeded(&said));
    result?;
    Ok(tally)
}

fn facts(bed: &Bed, tally: &mut Tally) -> anyhow::Result<()> {
    let apply = |file: &str| {
        let text = std::fs::read_to_string(file).with_context(|| file.to_owned())?;
        output_of(enter::kubectl(bed, 1)?.args(["apply", "-f", "-"]), &text)
    };
    apply(GATEWAY)?;
    let available = ["wait", "-n", "edge", "--for=condition=Available", "deployment/ingress", "--timeout=60s"];
    let ready = kubectl(bed, &available);
    tally.note("a gateway's pod of level restricted is ready before any Gateway selects it", ready.map(drop));
    apply(BEHIND)?;
    let ready = kubectl(bed, &["wait", "-n", "storefront", "--for=condition=Ready", "pod/web", "--timeout=60s"]);
    tally.note("the program behind it is ready", ready.map(drop));
    let answered = within(|| {
        let (status, body) = call(bed, HOST, "/")?;
        ensure!(status == "200" && body.trim() == "web", "{status} {body}");
        Ok(())
    });
    tally.note(
        "who calls the load balancer is answered by the program, which takes mutual TLS of the gateway only",
        answered,
    );
    let elsewhere = [(HOST, "/other"), ("other.example.com", "/")].into_iter().try_for_each(|(host, path)| {
        let (status, body) = call(bed, host, path)?;
        ensure!(status == "404", "{host}{path}: {status} {body}");
        Ok(())
    });
    tally.note("what no VirtualService leads anywhere is answered 404", elsewhere);
    tally.note("a server that ends TLS is refused with FL0201", refused(bed));
    tally.note("a hook over HTTP reaches a program that takes mutual TLS only", hook(bed));
    Ok(())
}

fn refused(bed: &Bed) -> anyhow::Result<()> {
    let words = ["apply", "--dry-run=server", "-f", "-"];
    let taken = output_of(enter::kubectl(bed, 1)?.args(words), TLS);
    let error = taken.err().context("it was taken")?;
    ensure!(format!("{error:#}").contains("FL0201"), "{error:#}");
    Ok(())
}

/// The program tells of its requests; the last is its hook's.
fn hook(bed: &Bed) -> anyhow::Result<()> {
    let mut log = enter::kubectl(bed, 1)?;
    log.args(["logs", "-n", "storefront", "web", "-c", "program", "--follow"]);
    let log = log.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    kubectl(bed, &["delete", "pod", "web", "-n", "storefront", "--timeout=60s"])?;
    let said = log.wait_with_output()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    ensure!(text.contains("/the-last"), "the program was not told: {text}");
    Ok(())
}

/// Status and body of a call from the lan.
fn call(bed: &Bed, host: &str, path: &str) -> anyhow::Result<(String, String)> {
    let address = bed.plan(enter::shape(bed)?).node(1);
    let (url, host) = (format!("http://{address}:{PORT}{path}"), format!("Host: {host}"));
    let said = output(
        enter::lan(bed)?.args(["curl", "-sS", "--max-time", "5", "-w", "\n%{http_code}", "-H", &host]).arg(url),
    )?;
    let (body, status) = said.rsplit_once('\n').unwrap_or_default();
    Ok((status.to_owned(), body.to_owned()))
}

fn within(holds: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        match holds() {
            Err(_) if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(200)),
            answer => return answer,
        }
    }
}

fn kubectl(bed: &Bed, words: &[&str]) -> anyhow::Result<String> {
    output(enter::kubectl(bed, 1)?.args(words))
}
