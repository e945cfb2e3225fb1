//! `fairlead inject`: the sidecar in YAML files, as the webhook would put it into pods.
//!
//! Invariant: standard output holds the documents and nothing else; what is refused is written as it was and is exit code 1.

use anyhow::{Context as _, bail};
use clap::Args;
use fairlead_install::inject::InjectSettings;
use fairlead_install::inject::documents::{Outcome, inject_documents};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Put the proxy into the pods of YAML files, without a cluster.
///
/// Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs, Pods and Lists of them are injected exactly as the webhook would do
/// it; other documents are written as they are. What was done is told on standard error. Exit code 1: something was refused.
///
/// Example: fairlead inject --cluster east -f deployment.yaml | kubectl apply -f -
///
/// With the settings of an installation, read by
///
/// kubectl -n fairlead-system get configmap fairlead-injector -o jsonpath='{.data.settings\.json}' > settings.json
///
/// Example: fairlead inject --cluster east --settings settings.json -f deployment.yaml
#[derive(Args, Debug)]
pub struct InjectArgs {
    /// The file; `-` is standard input.
    #[arg(short, long, default_value = "-")]
    file: PathBuf,
    /// The cluster that the pods are for.
    #[arg(long)]
    cluster: Option<String>,
    /// The cluster's trust domain; by default the one that an installation with default values has.
    #[arg(long)]
    trust_domain: Option<String>,
    /// Settings of the injector, JSON or YAML; by default those of `fairlead install` without options.
    #[arg(long)]
    settings: Option<PathBuf>,
    /// Namespace of objects that name none.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// A label of namespaces that are not among the documents, KEY=VALUE; may be given several times. Without any they count as
    /// selected for injection.
    #[arg(long, value_parser = label)]
    namespace_label: Vec<(String, String)>,
}

pub fn run(args: &InjectArgs) -> anyhow::Result<ExitCode> {
    let settings = settings(args)?;
    let input = read(&args.file)?;
    let labels: BTreeMap<String, String> = args.namespace_label.iter().cloned().collect();
    let labels = (!labels.is_empty()).then_some(&labels);
    let (output, reports) = inject_documents(&input, &args.namespace, labels, &settings)
        .with_context(|| format!("cannot read {}", args.file.display()))?;
    std::io::stdout().write_all(output.as_bytes())?;
    for report in &reports {
        match &report.outcome {
            Outcome::Injected => eprintln!("{}: injected", report.object),
            Outcome::Skipped(why) => eprintln!("{}: not injected: {why}", report.object),
            Outcome::Refused => eprintln!("{}: refused, and written as it was", report.object),
        }
        for diagnostic in &report.diagnostics {
            eprintln!("{diagnostic}");
        }
    }
    Ok(ExitCode::from(u8::from(reports.iter().any(|report| report.outcome == Outcome::Refused))))
}

fn settings(args: &InjectArgs) -> anyhow::Result<InjectSettings> {
    let mut settings: InjectSettings = match &args.settings {
        Some(file) => {
            let text = read(file)?;
            serde_saphyr::from_str(&text).with_context(|| format!("the settings in {}", file.display()))?
        }
        None => InjectSettings::default(),
    };
    if let Some(cluster) = &args.cluster {
        settings.cluster.clone_from(cluster);
    }
    if let Some(domain) = &args.trust_domain {
        settings.trust_domain.clone_from(domain);
    }
    if settings.cluster.is_empty() {
        bail!("which cluster are the pods for? give --cluster NAME, as at `fairlead install`");
    }
    if settings.trust_domain.is_empty() {
        let values =
            fairlead_install::Values { cluster: settings.cluster.clone(), ..fairlead_install::Values::default() };
        settings.trust_domain = values.trust_domain();
    }
    Ok(settings)
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, for example istio-injection=enabled")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use fairlead_install::inject::{Decision, Namespace, inject};
    use serde_json::{Value, json};

    /// Both ends of the contract are here: what injection writes is what this program reads.
    #[test]
    fn what_is_injected_can_be_started() {
        let probe =
            json!({"httpGet": {"path": "/x?a=$(B)", "port": 80, "httpHeaders": [{"name": "Host", "value": "h"}]}});
        let pod = json!({
            "metadata": {"name": "web", "annotations": {
                "prometheus.io/scrape": "true", "prometheus.io/port": "9100",
                "proxy.istio.io/config": "concurrency: 2",
                "traffic.sidecar.istio.io/excludeOutboundIPRanges": "192.0.2.0/24",
                "traffic.sidecar.istio.io/includeOutboundPorts": "80",
                "traffic.sidecar.istio.io/excludeOutboundPorts": "3306",
                "traffic.sidecar.istio.io/includeInboundPorts": "",
                "traffic.sidecar.istio.io/excludeInterfaces": "net1",
                "istio.io/reroute-virtual-interfaces": "tap0",
            }},
            "spec": {"containers": [{
                "name": "web", "image": "web", "readinessProbe": probe,
                "livenessProbe": {"tcpSocket": {"port": 80}}, "startupProbe": {"grpc": {"port": 80, "service": "s"}},
            }]},
        });
        for cni in [false, true] {
            let settings = super::InjectSettings {
                cluster: "east".into(),
                trust_domain: "east.example.org".into(),
                cni,
                ..super::InjectSettings::default()
            };
            let place = Namespace { name: "shop", labels: None };
            let Decision::Inject { pod, warnings } = inject(&pod, place, &settings) else { panic!("not injected") };
            assert_eq!(warnings, []);
            let init = &pod["spec"]["initContainers"];
            for container in [&init[0], &init[1]] {
                let words = std::iter::once("fairlead".to_owned()).chain(words(container));
                let read = crate::Cli::try_parse_from(words);
                assert!(
                    read.is_ok(),
                    "{}: {}",
                    container["name"],
                    read.err().map(|e| e.to_string()).unwrap_or_default()
                );
            }
        }
    }

    /// The arguments as the kubelet gives them.
    fn words(container: &Value) -> Vec<String> {
        let variables = container["env"].as_array().into_iter().flatten();
        let values: Vec<(String, String)> = variables
            .map(|one| {
                let value =
                    one["value"].as_str().map_or_else(|| "192.0.2.1".to_owned(), |text| text.replace("$$", "$"));
                (format!("$({})", one["name"].as_str().unwrap()), value)
            })
            .collect();
        let arguments = container["args"].as_array().unwrap().iter();
        arguments
            .map(|argument| {
                let text = argument.as_str().unwrap().to_owned();
                values.iter().fold(text, |text, (name, value)| text.replace(name, value))
            })
            .collect()
    }
}
