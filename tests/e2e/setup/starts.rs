//! Settings of container runtimes as they are met on machines: what setup starts from.

/// A machine's files, and what is to be true of them after setup.
pub(crate) struct Start {
    pub(crate) name: &'static str,
    /// Path and text; a text that begins with `-> ` is where a link leads.
    pub(crate) files: &'static [(&'static str, &'static str)],
    pub(crate) arguments: &'static [&'static str],
    /// containerd: the file that has `config_path` in the end (empty: none), its plugin, and the value.
    pub(crate) config: &'static str,
    pub(crate) plugin: &'static str,
    pub(crate) config_path: &'static str,
    /// containerd: the directory of `host:5000`.
    pub(crate) host_dir: &'static str,
    /// containerd: whole texts of files after setup.
    pub(crate) hosts: &'static [(&'static str, &'static str)],
    /// Texts that are in the changed file.
    pub(crate) keeps: &'static [&'static str],
    /// podman and CRI-O: where docker.io is.
    pub(crate) location: &'static str,
}

const MAIN: &str = "etc/containerd/config.toml";
const ONE: &str = "cri";
const TWO: &str = "io.containerd.grpc.v1.cri";
const THREE: &str = "io.containerd.cri.v1.images";

impl Start {
    pub(crate) const EMPTY: Self = Self {
        name: "nothing at all",
        files: &[],
        arguments: &[],
        config: MAIN,
        plugin: TWO,
        config_path: "/etc/containerd/certs.d",
        host_dir: "host:5000",
        hosts: &[],
        keeps: &[],
        location: "docker.io",
    };
}

pub(crate) const CONTAINERD: &[Start] = &[
    Start::EMPTY,
    Start {
        name: "the settings of Debian's package",
        files: &[(
            MAIN,
            "version = 2\n\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    [plugins.\"io.containerd.grpc.v1.cri\".cni]\n      bin_dir = \"/usr/lib/cni\"\n      conf_dir = \"/etc/cni/net.d\"\n  [plugins.\"io.containerd.internal.v1.opt\"]\n    path = \"/var/lib/containerd/opt\"\n",
        )],
        ..Start::EMPTY
    },
    Start { name: "an empty file", files: &[(MAIN, "")], plugin: ONE, ..Start::EMPTY },
    Start {
        name: "Docker's package of containerd, with the CRI plugin off",
        files: &[(
            MAIN,
            "#   Copyright 2018-2022 Docker Inc.\n\ndisabled_plugins = [\"cri\"]\n\n#root = \"/var/lib/containerd\"\n#[grpc]\n#  address = \"/run/containerd/containerd.sock\"\n",
        )],
        config: "",
        ..Start::EMPTY
    },
    Start {
        name: "kubeadm's usual edit, of version 2",
        files: &[(
            MAIN,
            "# made by ansible\nversion = 2\nroot = \"/data/containerd\"\n\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"registry.k8s.io/pause:3.9\"\n  [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n    SystemdCgroup = true\n  [plugins.\"io.containerd.grpc.v1.cri\".registry]\n    config_path = \"\" # none yet\n    [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors]\n[metrics]\n  address = \"127.0.0.1:1338\"\n",
        )],
        ..Start::EMPTY
    },
    Start {
        name: "version 1, without a word of it",
        files: &[(
            MAIN,
            "oom_score = -999\n\n[plugins]\n  [plugins.cri]\n    sandbox_image = \"k8s.gcr.io/pause:3.2\"\n    [plugins.cri.containerd]\n      snapshotter = \"overlayfs\"\n",
        )],
        plugin: ONE,
        ..Start::EMPTY
    },
    Start {
        name: "containerd 2's default settings",
        files: &[(
            MAIN,
            "version = 3\nroot = '/var/lib/containerd'\nimports = ['/etc/containerd/conf.d/*.toml']\n\n[plugins]\n  [plugins.'io.containerd.cri.v1.images']\n    snapshotter = 'overlayfs'\n    discard_unpacked_layers = false\n\n    [plugins.'io.containerd.cri.v1.images'.registry]\n      config_path = '/etc/containerd/certs.d:/etc/docker/certs.d'\n\n  [plugins.'io.containerd.grpc.v1.cri']\n    disable_tcp_service = true\n",
        )],
        plugin: THREE,
        ..Start::EMPTY
    },
    Start {
        name: "a managed cloud's node: several paths, of which the second is there",
        files: &[
            (
                MAIN,
                "version = 3\n[plugins.'io.containerd.cri.v1.images']\ndiscard_unpacked_layers = true\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"\n",
            ),
            ("etc/docker/certs.d/registry.corp/ca.crt", "certificate\n"),
        ],
        plugin: THREE,
        config_path: "/etc/docker/certs.d",
        ..Start::EMPTY
    },
    Start {
        name: "a drop-in that has the plugin's section, which is then all of it",
        files: &[
            (
                MAIN,
                "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"x\"\n",
            ),
            (
                "etc/containerd/conf.d/99-nvidia.toml",
                "version = 2\n\n[plugins]\n\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n\n    [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n      default_runtime_name = \"nvidia\"\n",
            ),
            ("etc/containerd/conf.d/10-debug.toml", "[debug]\nlevel = \"debug\"\n"),
        ],
        config: "etc/containerd/conf.d/99-nvidia.toml",
        ..Start::EMPTY
    },
    Start {
        name: "drop-ins of version 3, and no main file",
        files: &[(
            "etc/containerd/conf.d/runtime.toml",
            "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\nenable_selinux = true\n",
        )],
        plugin: THREE,
        ..Start::EMPTY
    },
    Start {
        name: "a drop-in with the plugin's section, and no main file",
        files: &[(
            "etc/containerd/conf.d/images.toml",
            "version = 3\n[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'native'\n",
        )],
        config: "etc/containerd/conf.d/images.toml",
        plugin: THREE,
        ..Start::EMPTY
    },
    Start {
        name: "hosts with comments, another mirror and a certificate",
        files: &[
            (
                MAIN,
                "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n",
            ),
            (
                "etc/containerd/certs.d/docker.io/hosts.toml",
                "# the hub, by way of our cache\nserver = \"https://registry-1.docker.io\" # not ours\n\n# in the cellar\n[host.\"https://cache.corp:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"cellar.pem\"\n  [host.\"https://cache.corp:5000\".header]\n    x-team = [\"infra\"]\n# end\n",
            ),
            ("etc/containerd/certs.d/docker.io/cellar.pem", "certificate\n"),
        ],
        hosts: &[(
            "etc/containerd/certs.d/docker.io/hosts.toml",
            "# the hub, by way of our cache\nserver = \"https://registry-1.docker.io\" # not ours\n\n[host.\"http://127.0.0.1:7711\"]\ncapabilities = [\"pull\", \"resolve\"]\n\n# in the cellar\n[host.\"https://cache.corp:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"cellar.pem\"\n  [host.\"https://cache.corp:5000\".header]\n    x-team = [\"infra\"]\n# end\n",
        )],
        ..Start::EMPTY
    },
    Start {
        name: "certificates as docker has them, and a port spelled out",
        files: &[
            (
                MAIN,
                "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n",
            ),
            ("etc/containerd/certs.d/host_5000_/ca.crt", "certificate\n"),
            ("etc/containerd/certs.d/host_5000_/node.cert", "certificate\n"),
            ("etc/containerd/certs.d/host_5000_/node.key", "key\n"),
        ],
        host_dir: "host_5000_",
        hosts: &[(
            "etc/containerd/certs.d/host_5000_/hosts.toml",
            "server = \"https://host:5000\"\nca = [\"ca.crt\"]\nclient = [[\"node.cert\", \"node.key\"]]\n\n[host.\"http://127.0.0.1:7711\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        )],
        ..Start::EMPTY
    },
    Start {
        name: "hosts for all registries",
        files: &[
            (
                MAIN,
                "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n",
            ),
            ("etc/containerd/certs.d/_default/hosts.toml", "[host.\"https://all.corp\"]\nca = \"all.pem\"\n"),
            ("etc/containerd/certs.d/_default/all.pem", "certificate\n"),
        ],
        hosts: &[(
            "etc/containerd/certs.d/docker.io/hosts.toml",
            "[host.\"http://127.0.0.1:7711\"]\ncapabilities = [\"pull\", \"resolve\"]\n\n[host.\"https://all.corp\"]\nca = \"../_default/all.pem\"\n",
        )],
        ..Start::EMPTY
    },
    Start {
        name: "mirror tables of the old kind, to be replaced",
        files: &[(
            MAIN,
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors]\n    [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\n      endpoint = [\"https://m.example\", \"https://registry-1.docker.io\"]\n    [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"quay.io\"]\n      endpoint = [\"https://m.example/v2/quay\"]\n  [plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"m.example\".auth]\n    username = \"u\"\n",
        )],
        arguments: &["--replace-mirrors"],
        hosts: &[
            (
                "etc/containerd/certs.d/docker.io/hosts.toml",
                "server = \"https://registry-1.docker.io\"\n\n[host.\"http://127.0.0.1:7711\"]\ncapabilities = [\"pull\", \"resolve\"]\n\n[host.\"https://m.example\"]\ncapabilities = [\"pull\", \"resolve\"]\n\n[host.\"https://registry-1.docker.io\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
            ),
            (
                "etc/containerd/certs.d/quay.io/hosts.toml",
                "server = \"https://quay.io\"\n\n[host.\"https://m.example/v2/quay\"]\ncapabilities = [\"pull\", \"resolve\"]\noverride_path = true\n",
            ),
        ],
        ..Start::EMPTY
    },
    Start {
        name: "line ends of DOS, and tabs",
        files: &[(
            MAIN,
            "version = 2\r\n\r\n# kept\r\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\r\n\tconfig_path = ''\r\n",
        )],
        ..Start::EMPTY
    },
    Start {
        name: "links, of which one begins at the root and one leads up",
        files: &[
            (MAIN, "-> /opt/settings/containerd.toml"),
            ("opt/settings/containerd.toml", "version = 2\n"),
            ("etc/containerd/certs.d", "-> ../../srv/hosts"),
            ("srv/hosts/README", "of the team\n"),
        ],
        config: "opt/settings/containerd.toml",
        ..Start::EMPTY
    },
];

pub(crate) const DOCKER: &[Start] = &[
    Start { name: "nothing at all", ..Start::EMPTY },
    Start { name: "an empty file", files: &[("etc/docker/daemon.json", "")], ..Start::EMPTY },
    Start { name: "an empty object", files: &[("etc/docker/daemon.json", "{}\n")], ..Start::EMPTY },
    Start {
        name: "kubeadm's settings for docker",
        files: &[(
            "etc/docker/daemon.json",
            "{\n  \"exec-opts\": [\"native.cgroupdriver=systemd\"],\n  \"log-driver\": \"json-file\",\n  \"log-opts\": {\n    \"max-size\": \"100m\"\n  },\n  \"storage-driver\": \"overlay2\"\n}\n",
        )],
        keeps: &["  \"exec-opts\": [\"native.cgroupdriver=systemd\"],\n", "\n  \"registry-mirrors\": ["],
        ..Start::EMPTY
    },
    Start {
        name: "another mirror, tabs, line ends of DOS",
        files: &[(
            "etc/docker/daemon.json",
            "{\r\n\t\"registry-mirrors\": [\r\n\t\t\"https://mirror.gcr.io\"\r\n\t],\r\n\t\"debug\": true\r\n}",
        )],
        keeps: &[
            "{\r\n",
            "[\r\n\t\t\"http://127.0.0.1:7711\",\r\n\t\t\"https://mirror.gcr.io\"\r\n\t],\r\n\t\"debug\": true\r\n}",
        ],
        ..Start::EMPTY
    },
    Start {
        name: "one line, with our mirror behind another",
        files: &[(
            "etc/docker/daemon.json",
            "{\"registry-mirrors\":[\"https://m.example\",\"http://127.0.0.1:7711/\"],\"live-restore\":true}",
        )],
        keeps: &["\"https://m.example\"]", ",\"live-restore\":true}"],
        ..Start::EMPTY
    },
    Start {
        name: "a link",
        files: &[
            ("etc/docker/daemon.json", "-> ../../opt/docker.json"),
            ("opt/docker.json", "{\n    \"debug\": false\n}\n"),
        ],
        keeps: &["    \"debug\": false,\n    \"registry-mirrors\": ["],
        ..Start::EMPTY
    },
];

pub(crate) const CONTAINERS: &[Start] = &[
    Start { name: "nothing at all", ..Start::EMPTY },
    Start {
        name: "the settings of Debian's package",
        files: &[
            (
                "etc/containers/registries.conf",
                "# For more information, see containers-registries.conf(5).\n# unqualified-search-registries = [\"example.com\"]\n",
            ),
            (
                "etc/containers/registries.conf.d/shortnames.conf",
                "[aliases]\n  \"alpine\" = \"docker.io/library/alpine\"\n",
            ),
        ],
        ..Start::EMPTY
    },
    Start {
        name: "Fedora's main file",
        files: &[(
            "etc/containers/registries.conf",
            "unqualified-search-registries = [\"registry.fedoraproject.org\", \"docker.io\"]\nshort-name-mode = \"enforcing\"\n",
        )],
        ..Start::EMPTY
    },
    Start {
        name: "a mirror of the hub in the main file",
        files: &[(
            "etc/containers/registries.conf",
            "unqualified-search-registries = [\"docker.io\"]\n\n[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\ninsecure = false\n\n[[registry.mirror]]\nlocation = \"mirror.gcr.io\"\n",
        )],
        keeps: &["insecure = false", "location = \"mirror.gcr.io\""],
        ..Start::EMPTY
    },
    Start {
        name: "a drop-in that sends the hub elsewhere",
        files: &[
            ("etc/containers/registries.conf", "unqualified-search-registries = [\"docker.io\"]\n"),
            (
                "etc/containers/registries.conf.d/001-corp.conf",
                "[[registry]]\nprefix = \"docker.io\"\nlocation = \"hub.corp/proxy\"\ninsecure = true\nmirror = [{ location = \"m.corp\", insecure = true }]\n",
            ),
        ],
        location: "hub.corp/proxy",
        keeps: &["\ninsecure = true\n", "location = \"m.corp\""],
        ..Start::EMPTY
    },
    Start {
        name: "a drop-in of the same name, made by hand",
        files: &[
            ("etc/containers/registries.conf", "# empty\n"),
            (
                "etc/containers/registries.conf.d/50-longshore.conf",
                "# by hand\n[[registry]]\nlocation = \"quay.io\" # kept\n[[registry.mirror]]\nlocation = \"127.0.0.1:7711/quay.io\"\ninsecure = true\n",
            ),
        ],
        keeps: &["# by hand\n[[registry]]\nlocation = \"quay.io\" # kept\n"],
        ..Start::EMPTY
    },
];
