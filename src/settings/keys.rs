//! Which settings there are. Most belong to every node; a supernode and a peer have more of their own.

use common::config::{Key, Kind, Schema};

/// All settings.
pub(super) const SCHEMA: Schema = Schema {
    sections: &[("supernode", &[NODE, LIMITS, SUPERNODE]), ("peer", &[NODE, LIMITS, PEER])],
    exempt: &["LONGSHORE_TESTS_", "LONGSHORE_OTLP_ENDPOINT"],
};

/// What the daemons' origins and stores are like.
const NODE: &[Key] = &[
    Key::new("data-dir", Kind::Text, "/var/lib/longshore"),
    Key::new("origin-allow", Kind::List, "*.example.com"),
    Key::new("origin-folder", Kind::List, "/mnt/models"),
    Key::new("registry", Kind::Table, "docker.io=https://registry-1.docker.io"),
    Key::new("insecure-registry", Kind::List, "registry.local:5000"),
    Key::new("ca-file", Kind::List, "/etc/ssl/registry-ca.pem"),
    Key::new("registry-ca", Kind::Table, "registry.local:5000=/etc/ssl/registry-ca.pem"),
    Key::new("quota", Kind::Share, "50GiB"),
    Key::new("high-watermark", Kind::Percent, "95%"),
    Key::new("low-watermark", Kind::Percent, "85%"),
    Key::new("keep-free", Kind::Share, "15%"),
    Key::new("ttl", Kind::Span, "30d"),
    Key::new("otlp-endpoint", Kind::Text, "http://127.0.0.1:4318"),
    Key::new("otlp-sample", Kind::Percent, "1%"),
];

/// How much may pass.
const LIMITS: &[Key] = &[
    Key::new("upload-limit", Kind::Rate, "200mbit"),
    Key::new("download-limit", Kind::Rate, "200mbit"),
    Key::new("origin-limit", Kind::Rate, "200mbit"),
    Key::new("task-upload-limit", Kind::Rate, "100mbit"),
    Key::new("task-download-limit", Kind::Rate, "100mbit"),
    Key::new("task-origin-limit", Kind::Rate, "100mbit"),
    Key::new("max-uploads", Kind::Number, "32"),
];

const SUPERNODE: &[Key] = &[
    Key::new("quic-listen", Kind::Address, "0.0.0.0:7700"),
    Key::new("http-listen", Kind::Address, "0.0.0.0:7701"),
    Key::new("advertise", Kind::Text, "10.0.0.1:7700"),
    Key::new("cache-url", Kind::Text, "s3://BUCKET/PREFIX"),
    Key::new("cache-endpoint", Kind::Text, "https://minio.example:9000"),
    Key::new("cache-region", Kind::Text, "eu-central-1"),
    Key::new("cache-credentials-file", Kind::Text, "/etc/longshore/cache-credentials"),
    Key::new("cluster-dir", Kind::Text, "/etc/longshore/cluster"),
    Key::new("api-token-file", Kind::Text, "/etc/longshore/api-token"),
    Key::new("kubernetes-join", Kind::List, "longshore/longshore-peer"),
    Key::new("kubernetes-audience", Kind::Text, "longshore"),
    Key::new("kubernetes-api", Kind::Text, "https://10.96.0.1:443"),
    Key::new("kubernetes-ca-file", Kind::Text, "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"),
    Key::new("kubernetes-token-file", Kind::Text, "/var/run/secrets/kubernetes.io/serviceaccount/token"),
    Key::new("kubernetes-controller", Kind::Bool, "true"),
    Key::new("kubernetes-namespace", Kind::Text, "longshore"),
    Key::new("kubernetes-zones", Kind::Bool, "true"),
    Key::new("http-cert", Kind::Text, "/etc/longshore/tls.crt"),
    Key::new("http-key", Kind::Text, "/etc/longshore/tls.key"),
    Key::new("max-sessions", Kind::Number, "20000"),
    Key::new("max-joins", Kind::Number, "5000"),
    Key::new("preheat-rule", Kind::List, "quay.io/team/**:v*=peers zone=eu-1a"),
    Key::new("registry-logins", Kind::Text, "/etc/longshore/registry-logins.json"),
];

const PEER: &[Key] = &[
    Key::new("supernode", Kind::List, "supernode.example:7700"),
    Key::new("join-token-file", Kind::Text, "/etc/longshore/join-token"),
    Key::new("kubernetes-token-file", Kind::Text, "/var/run/secrets/longshore/token"),
    Key::new("cluster-ca-file", Kind::Text, "/etc/longshore/ca.pem"),
    Key::new("quic-listen", Kind::Address, "0.0.0.0:7710"),
    Key::new("proxy-listen", Kind::Address, "127.0.0.1:7711"),
    Key::new("http-listen", Kind::Address, "0.0.0.0:7712"),
    Key::new("client-socket", Kind::Text, "/run/longshore/get.sock"),
    Key::new("client-socket-group", Kind::Text, "longshore"),
    Key::new("client-socket-mode", Kind::Text, "0660"),
    Key::new("advertise", Kind::Text, "10.0.0.2:7710"),
    Key::new("zone", Kind::Text, "eu-1a"),
    Key::new("rack", Kind::Text, "r12"),
    Key::new("host", Kind::Text, "node-7"),
    Key::new("default-registry", Kind::Text, "docker.io"),
    Key::new("permission-life", Kind::Span, "5m"),
    Key::new("permission-grace", Kind::Span, "1h"),
    Key::new("push", Kind::Text, "as-proxy"),
    Key::new("forward-proxy", Kind::Bool, "true"),
    Key::new("intercept", Kind::List, "registry-1.docker.io"),
    Key::new("read-ahead", Kind::Bool, "true"),
    Key::new("content-store", Kind::List, "/var/lib/containerd"),
    Key::new("runtime-socket", Kind::Text, "/run/containerd/containerd.sock"),
];
