//! A cluster is put out of a mesh that is in use: its connections end, new ones are refused, restarts change nothing of that, and
//! nobody else notices.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

use crate::mesh::{Mesh, Report, until};
use std::time::{Duration, Instant};

/// Every proxy and gateway of the others has closed its connections within this.
const PROMISED: Duration = Duration::from_secs(5);
/// How long what must not be cut is watched; what is cut ends its report at once.
const WATCHED: &str = "12s";
const STREAMS: u64 = 3;

/// A caller, what it holds open, and the Envoy cluster in which its proxy counts that.
type Held = (&'static str, &'static str, &'static str);

const FROM_EAST: Held = ("east/app/client", "tcp://west-only:5432", "outbound|5432||west-only.app.svc.cluster.local");
const FROM_NORTH: Held =
    ("north/app/client", "grpc://west-only:7070/app.Web/Watch", "outbound|7070||west-only.app.svc.cluster.local");
const FROM_WEST: Held = ("west/app/client", "tcp://north-only:5432", "outbound|5432||north-only.app.svc.cluster.local");
const AMONG_OTHERS: Held =
    ("east/app/client", "tcp://north-only:5432", "outbound|5432||north-only.app.svc.cluster.local");
const AT_HOME: Held = ("west/app/client", "tcp://west-only:5432", "outbound|5432||west-only.app.svc.cluster.local");

#[test]
fn a_detached_clusters_connections_end_and_new_ones_are_refused_also_after_restarts() {
    let mesh = Mesh::start();
    everywhere(&mesh);
    refused_after_restarts(&mesh);
    mesh.lab(&["heal", "west"]);
    mesh.comes_to("east/app/client", "GET http://west-only/", ("200", "west/app/web-0"));
    mesh.comes_to("north/app/client", "GET http://west-only/", ("200", "west/app/web-0"));
    mesh.comes_to("west/app/client", "GET http://north-only/", ("200", "north/app/far-0"));
    here_only(&mesh);
}

fn everywhere(mesh: &Mesh) {
    let load = |from: &str, request: &str| mesh.begin(&["load", from, request, "--rate", "20", "--for", WATCHED]);
    let loads = [
        ("east to north", load("east/app/client", "GET http://north-only/")),
        ("east at home and west", load("east/app/client", "GET http://web/")),
        ("west at home", load("west/app/client", "GET http://web/")),
    ];
    let cut = hold(mesh, &[FROM_EAST, FROM_NORTH, FROM_WEST]);
    let kept = hold(mesh, &[AMONG_OTHERS, AT_HOME]);
    mesh.lab(&["detach", "west"]);
    let done = Instant::now();
    refused(mesh);
    for (held, began, report) in cut {
        let report = report.end();
        assert_eq!(report["failed"], STREAMS, "{held:?}: {report}");
        for stream in report["cut"].as_array().unwrap() {
            let at = began + Duration::from_secs_f64(stream["at"].as_f64().unwrap());
            println!("{held:?}: cut {:?} after the command was done", at.saturating_duration_since(done));
            assert!(at < done + PROMISED, "{held:?}: {stream}");
        }
    }
    for (held, _, report) in kept {
        let report = report.end();
        assert_eq!(
            (report["total"].as_u64(), report["failed"].as_u64()),
            (Some(STREAMS), Some(0)),
            "{held:?}: {report}"
        );
    }
    for (what, load) in loads {
        let report = load.end();
        assert_eq!(report["failed"], 0, "{what}: {report}");
    }
}

/// Opens streams, and waits until the callers' proxies have them.
fn hold(mesh: &Mesh, all: &[Held]) -> Vec<(Held, Instant, Report)> {
    let begin = |held: &Held| {
        let streams = STREAMS.to_string();
        let words = ["hold", held.0, held.1, "--streams", streams.as_str(), "--for", WATCHED];
        (*held, Instant::now(), mesh.begin(&words))
    };
    let begun = all.iter().map(begin).collect();
    for (caller, request, envoy) in all {
        until(&format!("{caller} holds {request}"), || {
            let page = mesh.page(caller, "/clusters");
            let active = page
                .lines()
                .filter(|line| line.starts_with(envoy))
                .find_map(|line| line.split_once("::rq_active::")?.1.parse::<u64>().ok());
            if active >= Some(STREAMS) { Ok(()) } else { Err(format!("{active:?}")) }
        });
    }
    begun
}

/// Neither side takes anything of the other's: the callers' proxies know nothing of west, and the callees' refuse it.
fn refused(mesh: &Mesh) {
    mesh.comes_to("east/app/client", "GET http://west-only/", ("unresolved", ""));
    mesh.comes_to("north/app/client", "GET http://west-only/", ("unresolved", ""));
    mesh.comes_to("west/app/client", "GET http://north-only/", ("503", ""));
    mesh.comes_to("west/app/client", "tcp://north-only:5432", ("reset", ""));
    mesh.comes_to("east/app/client", "GET http://north-only/", ("200", "north/app/far-0"));
    mesh.comes_to("west/app/client", "GET http://web/", ("200", "west/app/web-0"));
}

fn refused_after_restarts(mesh: &Mesh) {
    let parts = [
        &["east/control", "north/control"][..],
        &["east/app/client", "north/app/client", "north/app/far"],
        &["north/east-west", "east/east-west"],
        &["west/control", "west/app/client", "west/east-west"],
    ];
    for group in parts {
        for part in group {
            mesh.lab(&["restart", part]);
            // At no moment, not only in the end.
            for (from, request) in [
                ("east/app/client", "GET http://west-only/"),
                ("north/app/client", "GET http://west-only/"),
                ("west/app/client", "GET http://north-only/"),
                ("west/app/client", "tcp://north-only:5432"),
            ] {
                let (status, who) = mesh.call(from, request);
                assert!(
                    who.is_empty() && status != "200",
                    "after a restart of {part}, {from} {request}: {status} {who}"
                );
            }
        }
        refused(mesh);
    }
}

/// What one cluster does for itself holds there only, and over its restart.
fn here_only(mesh: &Mesh) {
    let cut = hold(mesh, &[FROM_EAST]);
    let kept = hold(mesh, &[FROM_NORTH, FROM_WEST, AMONG_OTHERS]);
    mesh.lab(&["detach", "west", "--by", "east", "--here"]);
    for (held, _, report) in cut {
        let report = report.end();
        assert_eq!(report["failed"], STREAMS, "{held:?}: {report}");
    }
    for (held, _, report) in kept {
        let report = report.end();
        assert_eq!(report["failed"], 0, "{held:?}: {report}");
    }
    for part in [None, Some("east/control"), Some("east/app/client")] {
        part.map(|part| mesh.lab(&["restart", part]));
        mesh.comes_to("east/app/client", "GET http://west-only/", ("unresolved", ""));
        mesh.comes_to("north/app/client", "GET http://west-only/", ("200", "west/app/web-0"));
        mesh.comes_to("west/app/client", "GET http://north-only/", ("200", "north/app/far-0"));
    }
    mesh.lab(&["heal"]);
    mesh.comes_to("east/app/client", "GET http://west-only/", ("200", "west/app/web-0"));
}
