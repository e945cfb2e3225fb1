//! Keeps the programs of a node running: what ends is started again, as systemd or a kubelet would.
//!
//! A file named after a component in the folder `stopped` ends it and keeps it ended: that is how tests take an API server away.
//! Invariant: a program is stopped by that file and by nothing else that is in the repository.

use super::configuration::Component;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A program that ends at once is not started again sooner.
const PAUSE: Duration = Duration::from_secs(1);

struct Program {
    component: Component,
    child: Option<Child>,
    started: Option<Instant>,
}

/// The programs of one node.
pub struct Supervisor {
    folder: PathBuf,
    programs: Vec<Program>,
}

impl Supervisor {
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), programs: Vec::new() }
    }

    /// Starts a program and keeps it running.
    pub fn add(&mut self, component: Component) {
        self.programs.push(Program { component, child: None, started: None });
        self.look();
    }

    /// Waits for `ready`, minding the programs meanwhile. Who started the cluster has a limit for it.
    pub fn until(&mut self, what: &str, ready: impl Fn() -> bool) {
        let begun = Instant::now();
        while !ready() {
            self.look();
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("{what} answers after {:.1} s", begun.elapsed().as_secs_f32());
    }

    /// Minds the programs, for ever.
    pub fn run(&mut self, every: Duration) -> anyhow::Result<()> {
        loop {
            self.look();
            std::thread::sleep(every);
        }
    }

    fn look(&mut self) {
        for program in &mut self.programs {
            let name = program.component.name;
            let wanted = !self.folder.join("stopped").join(name).exists();
            if let Some(child) = &mut program.child {
                match child.try_wait() {
                    Ok(None) if wanted => continue,
                    Ok(None) => {
                        let _ = child.kill();
                        let _ = child.wait();
                        println!("{name}: stopped");
                    }
                    ended => println!("{name}: ended, {ended:?}"),
                }
                program.child = None;
            }
            let soon = program.started.is_some_and(|started| started.elapsed() < PAUSE);
            if wanted && !soon {
                program.started = Some(Instant::now());
                match start(&self.folder, &program.component) {
                    Ok(child) => program.child = Some(child),
                    Err(error) => println!("{name}: cannot be started: {error:#}"),
                }
            }
        }
    }
}

fn start(folder: &Path, component: &Component) -> anyhow::Result<Child> {
    let log =
        File::options().create(true).append(true).open(folder.join("log").join(format!("{}.log", component.name)))?;
    let mut command = Command::new(&component.program);
    // An empty environment: a proxy's address would keep an API server from its webhooks.
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", "/root")
        .env("GOGC", "200");
    command.args(&component.words).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command.spawn()?)
}

/// Ends a component of a running cluster, or lets it be started again.
pub fn set_stopped(folder: &Path, component: &str, stopped: bool) -> anyhow::Result<()> {
    let file = folder.join("stopped").join(component);
    if stopped {
        fs::write(&file, "")?;
    } else if file.exists() {
        fs::remove_file(&file)?;
    }
    Ok(())
}
