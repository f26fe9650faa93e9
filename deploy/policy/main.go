// What the manifests may ask of a cluster: read from stdin, every workload is held against Kubernetes's own Pod Security
// rules and against those of this project. Called by deploy/check. With the word `arguments` it prints instead what
// Longshore's own containers are started with, a line each; with `settings` the settings file.
//
// A component is allowed exactly what is in its line of `allowed`. What it asks for beyond is a failure, and so is what it asks
// for no more: a line that is too long would hide the next mistake.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/pod-security-admission/policy"
	kyaml "sigs.k8s.io/yaml"
)

// The rules of the restricted profile that a component breaks, and why it must.
var allowed = map[string][]string{
	"supernode": {},
	"removed":   {},
	// The node's network, because runtimes ask a proxy on loopback; folders of the node; root, because these are root's.
	"peer": {"hostNamespaces", "hostPathVolumes", "hostPorts", "restrictedVolumes", "runAsNonRoot", "runAsUser"},
	// The same without ports.
	"doctor": {"hostNamespaces", "hostPathVolumes", "restrictedVolumes", "runAsNonRoot", "runAsUser"},
	// Folders of the node and root.
	"remove": {"hostPathVolumes", "restrictedVolumes", "runAsNonRoot", "runAsUser"},
}

// What a pod asks for besides, when an init container of it restarts the runtime.
var restarting = []string{"allowPrivilegeEscalation", "capabilities_restricted", "hostNamespaces", "privileged", "seccompProfile_restricted"}

// Any of the kinds that are looked at.
type object struct {
	meta.TypeMeta   `json:",inline"`
	meta.ObjectMeta `json:"metadata"`
	// of a Role
	Rules []rbac.PolicyRule `json:"rules"`
	// of a workload; of a Pod it is the pod's own
	Spec core.PodSpec `json:"spec"`
	// of a ConfigMap
	Data map[string]string `json:"data"`
}

// A workload that makes pods.
type workload struct {
	Spec struct {
		Template core.PodTemplateSpec `json:"template"`
	} `json:"spec"`
}

func main() {
	wish := strings.Join(os.Args[1:], " ")
	complaints, pods := 0, 0
	say := func(one object, format string, arguments ...any) {
		complaints++
		fmt.Printf("%s %s: %s\n", one.Kind, one.Name, fmt.Sprintf(format, arguments...))
	}
	documents := yaml.NewYAMLReader(bufio.NewReader(os.Stdin))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			fatal(err)
		}
		var one object
		var kind meta.TypeMeta
		if err := kyaml.Unmarshal(document, &kind); err != nil {
			fatal(err)
		}
		switch kind.Kind {
		case "DaemonSet", "StatefulSet", "Deployment", "Job":
			var many workload
			if err := kyaml.Unmarshal(document, &many); err != nil {
				fatal(err)
			}
			var named meta.PartialObjectMetadata
			if err := kyaml.Unmarshal(document, &named); err != nil {
				fatal(err)
			}
			one = object{TypeMeta: kind, ObjectMeta: many.Spec.Template.ObjectMeta, Spec: many.Spec.Template.Spec}
			one.Name = named.Name
		case "Pod", "Role", "ClusterRole", "ConfigMap":
			if err := kyaml.Unmarshal(document, &one); err != nil {
				fatal(err)
			}
		default:
			continue
		}
		pods += len(one.Spec.Containers)
		switch wish {
		case "settings":
			fmt.Print(one.Data["longshore.toml"])
		case "arguments":
			for _, container := range slices.Concat(one.Spec.InitContainers, one.Spec.Containers) {
				if strings.Contains(container.Image, "/longshore") {
					fmt.Println(strings.Join(container.Args, " "))
				}
			}
		default:
			for _, rule := range one.Rules {
				judgeRule(one, rule, say)
			}
			if len(one.Spec.Containers) > 0 {
				judgePod(one, say)
			}
		}
	}
	if pods == 0 {
		fatal(errors.New("no workload was read"))
	}
	if complaints > 0 {
		os.Exit(1)
	}
}

// Holds a pod against both sets of rules.
func judgePod(one object, say func(object, string, ...any)) {
	spec := one.Spec
	may, known := allowed[one.Labels["app.kubernetes.io/component"]]
	if !known {
		say(one, "its component %q has no line in deploy/policy/main.go", one.Labels["app.kubernetes.io/component"])
		return
	}
	restarts := slices.ContainsFunc(spec.InitContainers, func(one core.Container) bool { return one.Name == "restart" })
	if restarts {
		may = append(slices.Clone(may), restarting...)
	}
	if spec.HostIPC || spec.HostPID && !restarts {
		say(one, "the node's network is one thing, its processes and its shared memory are another")
	}
	for _, container := range slices.Concat(spec.InitContainers, spec.Containers) {
		if rules := container.SecurityContext; rules != nil && rules.Privileged != nil && *rules.Privileged && container.Name != "restart" {
			say(one, "container %s must not be privileged", container.Name)
		}
	}
	asked := map[string]string{}
	for _, check := range policy.DefaultChecks() {
		// the last word of each check: the newest release's
		last := check.Versions[len(check.Versions)-1]
		if result := last.CheckPod(&one.ObjectMeta, &spec); !result.Allowed {
			asked[string(check.ID)] = result.ForbiddenReason + ": " + result.ForbiddenDetail
		}
	}
	for id, why := range asked {
		if !slices.Contains(may, id) {
			say(one, "%s (%s)", why, id)
		}
	}
	for _, id := range may {
		if _, is := asked[id]; !is {
			say(one, "it needs %s no more: take it out of deploy/policy/main.go", id)
		}
	}
	if spec.EnableServiceLinks == nil || *spec.EnableServiceLinks {
		say(one, "enableServiceLinks must be false: variables of Services begin with LONGSHORE_, too")
	}
	if spec.AutomountServiceAccountToken == nil {
		say(one, "automountServiceAccountToken must be said")
	}
	for _, container := range slices.Concat(spec.InitContainers, spec.Containers) {
		if container.Resources.Requests.Cpu().IsZero() || container.Resources.Requests.Memory().IsZero() || container.Resources.Limits.Memory().IsZero() {
			say(one, "container %s must have requests, and a limit of memory", container.Name)
		}
		if rules := container.SecurityContext; rules == nil || rules.ReadOnlyRootFilesystem == nil || !*rules.ReadOnlyRootFilesystem {
			say(one, "container %s must have a read-only root file system", container.Name)
		}
		if name, _, found := strings.Cut(container.Image[strings.LastIndex(container.Image, "/")+1:], ":"); !found && !strings.Contains(container.Image, "@") || strings.HasSuffix(container.Image, ":latest") {
			say(one, "container %s must name a version of %s", container.Name, name)
		}
	}
	for _, container := range spec.Containers {
		serves := len(container.Ports) > 0
		if serves && (container.LivenessProbe == nil || container.ReadinessProbe == nil) {
			say(one, "container %s must have probes", container.Name)
		}
	}
}

// No rule is wider than what it names.
func judgeRule(one object, rule rbac.PolicyRule, say func(object, string, ...any)) {
	for _, word := range slices.Concat(rule.APIGroups, rule.Resources, rule.Verbs) {
		if strings.Contains(word, "*") {
			say(one, "a rule must name what it allows, not %q", word)
		}
	}
	if slices.Contains(rule.Resources, "secrets") && len(rule.ResourceNames) == 0 {
		say(one, "a rule for secrets must name them")
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "policy:", err)
	os.Exit(2)
}
