//! How a lab ends, and what it leaves: in order, by a signal, by force; two of them; one folder for two.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

use crate::mesh::{Machine, end, until};
use nix::sys::signal::Signal;
use std::path::PathBuf;

#[test]
fn a_lab_leaves_nothing_behind_however_it_ends() {
    let machine = Machine::new();
    assert_eq!(machine.run(&["lab", "status"]).code, 2, "there is none yet");
    assert!(machine.run(&["get", "clusters"]).err.contains("no mesh runs here"));

    let mut killed = machine.up(&[]);
    machine.wait(&mut killed);
    assert!(!processes(&machine).is_empty(), "the check must see what it looks for");
    end(&mut killed, Signal::SIGKILL);
    until("its processes are gone", || {
        let left = processes(&machine);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    let left = folders(&machine);
    assert_eq!(left.len(), 1, "nobody was there to remove it");
    let said = machine.run(&["lab", "status"]);
    assert!(said.code == 2 && said.err.contains("no mesh runs here"), "{said:?}");

    let mut first = machine.up(&[]);
    machine.wait(&mut first);
    let of_first = folders(&machine);
    assert!(of_first.len() == 1 && of_first != left, "the next one removes what was left: {of_first:?}");
    two_at_once(&machine, &of_first[0]);
    assert_eq!(end(&mut first, Signal::SIGINT), 0, "{}", machine.log());
    assert!(folders(&machine).is_empty() && processes(&machine).is_empty(), "{:?}", folders(&machine));
}

/// Verbs mean the lab started last, and when that has ended the other; a folder is one lab's; what is kept can be used again.
fn two_at_once(machine: &Machine, first: &std::path::Path) {
    let kept = machine.labs().with_file_name("kept");
    let keep = ["--state", kept.to_str().unwrap()];
    for turn in ["new", "used before"] {
        let mut second = machine.up(&keep);
        until("the second is the one that is meant", || {
            let said = machine.run(&["lab", "status"]);
            let meant = said.out.contains(&format!("state {}\n", kept.display()));
            if meant { Ok(()) } else { Err(format!("{turn}: {said:?} {}", machine.log())) }
        });
        assert_eq!(machine.run(&["lab", "kill", "west"]).code, 0);
        let taken = machine.run(&["up", "trio", "--state", keep[1]]);
        assert!(taken.code == 2 && taken.err.contains("a lab runs in"), "{taken:?}");
        assert_eq!(machine.run(&["lab", "down"]).code, 0);
        assert_eq!(end(&mut second, Signal::SIGCONT), 0, "it ends by itself: {}", machine.log());
        let said = machine.run(&["lab", "status"]);
        assert!(said.out.contains(&format!("state {}\n", first.display())), "{said:?}");
        assert!(said.out.contains("all is whole"), "what was done to the one was not done to the other: {said:?}");
        assert!(kept.join("logs").is_dir(), "it was to be kept");
    }
}

fn folders(machine: &Machine) -> Vec<PathBuf> {
    let all = std::fs::read_dir(machine.labs()).into_iter().flatten().flatten();
    all.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Processes whose environment names this machine's folder.
fn processes(machine: &Machine) -> Vec<String> {
    let mark = machine.labs().parent().unwrap().to_string_lossy().into_owned();
    let all = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let ours = |process: &PathBuf| {
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&mark)
    };
    all.filter(ours).map(|process| process.display().to_string()).collect()
}
