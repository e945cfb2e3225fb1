//! Verbs with right and wrong words, in good and bad order: what each says, its exit code, and that a refusal changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

use crate::mesh::{Mesh, until};

/// 0 done, 1 refused, 2 wrong words; what must be said; the verb.
const WORDS: &[(i32, &str, &[&str])] = &[
    (0, "killed east/app/web-0 (program)", &["kill", "east/app/web"]),
    (0, "nothing changed: it was so already", &["kill", "east/app/web-0"]),
    (0, "started east/app/web-0 (program)", &["heal", "east/app/web"]),
    (0, "nothing changed: it was so already", &["heal", "east/app/web"]),
    (0, "restarted east/app/web-0", &["restart", "east/app/web"]),
    (2, "has no process proxi; there are: program, proxy", &["kill", "east/app/web-0", "--process", "proxi"]),
    (2, "near it are west", &["kill", "wst"]),
    (2, "required arguments", &["cut", "east"]),
    (2, "are not two", &["cut", "east", "east"]),
    (2, "are not two", &["cut", "east", "east/app/web"]),
    (0, "broke: cut east west", &["cut", "west", "east"]),
    (0, "nothing changed: it was so already", &["cut", "east", "west"]),
    (1, "east/app/web-0 is broken by `cut east west`; heal east or west", &["heal", "east/app/web"]),
    (0, "healed: cut east west", &["heal", "west"]),
    (0, "all is whole", &["heal"]),
    // What a name means is told what can be told to it: a gateway has no program.
    (2, "has no sidecar that asks whether its program is ready", &["unhealthy", "east/east-west"]),
    (2, "there is no `east/control`", &["answers", "east/control", "503"]),
    (0, "broken: unhealthy east/app/client-0, unhealthy east/app/web-0\n", &["unhealthy", "east"]),
    (0, "healed: unhealthy east/app/web-0", &["heal", "east"]),
    (2, "does not run the echo program", &["answers", "east/east-west", "503"]),
    (2, "write an HTTP status", &["answers", "east/app/web", "sometimes"]),
    (0, "broken: answers east/app/client-0, answers east/app/web-0\n", &["answers", "east", "404"]),
    (0, "broken: answers east/app/client-0\n", &["answers", "east/app/web", "normal"]),
    (0, "all is whole", &["heal"]),
    (2, "there is no `west/control`", &["drain", "west/control"]),
    (0, "broken: drain north", &["drain", "north"]),
    (0, "all is whole", &["drain", "north", "--off"]),
    (2, "is no cluster of this mesh; there are east, north, west", &["freeze", "east/app/web"]),
    (0, "broke: freeze west", &["freeze", "west/control"]),
    (0, "nothing changed: it was so already", &["freeze", "west"]),
    (0, "all is whole", &["heal", "west"]),
    (2, "west cannot detach itself", &["detach", "west", "--by", "west"]),
    (2, "`nowhere` is no cluster", &["detach", "west", "--by", "nowhere"]),
    (2, "request: udp is not sent", &["call", "east/app/client", "udp://web:53"]),
    (2, "request: ws is not sent", &["call", "east/app/client", "ws://web/"]),
    (2, "write `METHOD SCHEME", &["call", "east/app/client", "GOT"]),
    (2, "east/app/nobody", &["call", "east/app/nobody", "GET http://web/"]),
    (2, "only tcp and grpc requests", &["hold", "east/app/client", "GET http://web/", "--for", "1s"]),
    (2, "1 to 1000", &["hold", "east/app/client", "tcp://web:5432", "--streams", "0", "--for", "1s"]),
    (2, "between 0 and 20000", &["load", "east/app/client", "GET http://web/", "--rate", "0", "--for", "1s"]),
    (1, "50 failed", &["load", "east/app/client", "GET http://nobody/", "--rate", "50", "--for", "1s"]),
    (2, "a path begins with /", &["admin", "east/app/client", "stats"]),
    (2, "is 2 workloads", &["admin", "east/app", "/ready"]),
    (1, "404", &["admin", "east/app/client", "/nothing"]),
    (0, "LIVE", &["admin", "east/east-west", "/ready"]),
    (0, "fairlead.endpoints_removed: ", &["admin", "east/app/client", "/stats?filter=endpoints_removed"]),
];

#[test]
fn each_verb_says_what_it_did_and_a_refusal_changes_nothing() {
    let mesh = Mesh::start();
    let mut before = mesh.lab(&["status"]);
    for (code, text, words) in WORDS {
        let said = mesh.try_lab(words);
        assert_eq!(said.code, *code, "{words:?}: {said:?}");
        let told = if *code == 2 || said.out.is_empty() { &said.err } else { &said.out };
        assert!(told.contains(text), "{words:?}: {said:?}");
        let after = mesh.lab(&["status"]);
        assert!(*code == 0 || after == before, "{words:?} was refused and yet changed:\n{before}\n{after}");
        before = after;
    }
    assert!(mesh.is_whole(), "{before}");
    explained_where_it_runs(&mesh);
    killed_whole_then_parts(&mesh);
    drained_stays_drained(&mesh);
    load_ends_with_its_client(&mesh);
}

/// Load whose client was killed does not go on for its whole time.
fn load_ends_with_its_client(mesh: &Mesh) {
    let name = "cluster.outbound|80||north-only.app.svc.cluster.local.upstream_rq_total: ";
    let count = || {
        let page = mesh.page("east/app/client", "/stats?filter=north-only.app.svc.cluster.local.upstream_rq_total");
        page.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok()).unwrap()
    };
    let before = count();
    let load = mesh.begin(&["load", "east/app/client", "GET http://north-only/", "--rate", "500", "--for", "600s"]);
    until("load is on its way", || if count() > before { Ok(()) } else { Err("none".into()) });
    load.kill();
    // Between two looks a command is started and ended: many requests would have been sent.
    until("no request is sent any more", || match (count(), count()) {
        (one, other) if one == other => Ok(()),
        counts => Err(format!("{counts:?}")),
    });
}

/// While a mesh runs, `explain` needs no directory.
fn explained_where_it_runs(mesh: &Mesh) {
    let said = mesh.machine.run(&["explain", "east/app/client", "GET http://web/"]);
    assert_eq!((said.code, said.out.contains("VirtualService app/web")), (0, true), "{said:?}");
}

/// What a fault of the whole holds down, neither a restart nor a heal of a part brings back.
fn killed_whole_then_parts(mesh: &Mesh) {
    mesh.lab(&["kill", "north"]);
    for verb in ["restart", "heal"] {
        let said = mesh.try_lab(&[verb, "north/app/far"]);
        assert_eq!((said.code, said.err.contains("kill north")), (1, true), "{said:?}");
    }
    assert_eq!(mesh.try_lab(&["drain", "north"]).code, 1, "its control plane is not there to be told");
    mesh.lab(&["heal", "north"]);
    mesh.lab(&["detach", "west", "--by", "east", "--here"]);
    mesh.lab(&["kill", "east/control"]);
    let said = mesh.try_lab(&["heal", "west"]);
    assert_eq!((said.code, said.err.contains("east/control")), (1, true), "only east could take it back: {said:?}");
    mesh.lab(&["heal"]);
    mesh.comes_to("east/app/client", "GET http://west-only/", ("200", "west/app/web-0"));
    mesh.comes_to("east/app/client", "GET http://north-only/", ("200", "north/app/far-0"));
}

/// A drained workload stays so when its proxy begins anew, whoever made it do so.
fn drained_stays_drained(mesh: &Mesh) {
    let health = || {
        let rows = mesh.get("endpoints", "east");
        let own = rows.iter().find(|row| row["workload"] == "east/app/web-0").unwrap();
        own["health"].as_str().unwrap().to_owned()
    };
    let is = |wanted: &str| {
        until(&format!("east/app/web-0 is {wanted}"), || {
            let now = health();
            if now == wanted { Ok(()) } else { Err(now) }
        });
    };
    let served = || {
        let rows = mesh.get("proxies", "east");
        let own = rows.iter().find(|row| row["workload"] == "east/app/web-0" && row["ready"] == true)?;
        own["atMs"].as_u64()
    };
    mesh.lab(&["drain", "east/app/web"]);
    is("draining");
    let restart = ["restart", "east/app/web"];
    for breaks in [None, Some(["kill", "east/app/web", "--process", "proxy"])] {
        let before = served();
        breaks.map(|words| mesh.lab(&words));
        mesh.lab(&restart);
        // What is known of its former self is not enough.
        until("the new proxy is served", || if served() > before { Ok(()) } else { Err(format!("{:?}", served())) });
        is("draining");
        assert!(mesh.lab(&["status"]).contains("broken: drain east/app/web-0"));
    }
    mesh.lab(&["heal"]);
    is("healthy");
}
