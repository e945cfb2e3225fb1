fn main() {
    match fairlead_lab::role() {
        Ok(fairlead_lab::Role::Inside(inside)) => {
            let l = inside.listen_outside("127.0.0.1:0".parse().unwrap()).unwrap();
            println!("inside pid {} {:?} args {:?}", std::process::id(), l.local_addr(), std::env::args());
            let e = inside.listen_outside("192.0.2.1:80".parse().unwrap()).unwrap_err();
            println!("{e}");
            for d in std::fs::read_dir("/proc").unwrap() { let n = d.unwrap().file_name(); if n.to_str().unwrap().parse::<u32>().is_ok() { print!("{n:?} "); } }
            println!();
            let ns = fairlead_lab::netns::NetNs::create().unwrap();
            fairlead_lab::links::bridge("br0").unwrap();
            fairlead_lab::links::veth("v0", "br0", "eth0", std::os::fd::AsFd::as_fd(&ns)).unwrap();
            ns.run(|| {
                fairlead_lab::links::set_up("eth0", true).unwrap();
                fairlead_lab::links::add_addresses("eth0", &["10.0.0.1".parse().unwrap()]).unwrap();
                let t = fairlead_lab::capture::Capture::new(fairlead_lab::capture::LoopGuard::Mark(1)).table();
                fairlead_lab::rules::install(&t).unwrap();
                fairlead_lab::rules::install(&fairlead_lab::rules::masquerade("eth0")).unwrap();
                let r = fairlead_lab::links::set("net.ipv4.ip_forward", "1"); println!("{r:?}");
                println!("{:?}", std::process::Command::new("/usr/sbin/ip").args(["addr"]).output().map(|o| String::from_utf8(o.stdout).unwrap()).unwrap_or_default());
                println!("{}", fairlead_lab::links::set_up("eth7", true).unwrap_err());
                println!("{}", fairlead_lab::links::add_routes(&[fairlead_lab::links::Route{to: "10.1.0.0/16".parse().unwrap(), action: fairlead_lab::links::RouteAction::Link{device:"eth0".into(), source: Some("10.9.9.9".parse().unwrap())}}]).unwrap_err());
            }).unwrap();
            std::process::exit(7)
        }
        Ok(fairlead_lab::Role::Outside) => {
            println!("probe {:?}", fairlead_lab::probe::probe());
            let t = std::time::Instant::now();
            println!("{:?} {:?}", fairlead_lab::enter(), t.elapsed());
        }
        Err(e) => panic!("{e}"),
    }
}
