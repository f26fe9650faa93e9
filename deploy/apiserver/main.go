// Kubernetes's own API server, built from its published modules, so that deploy/check has a real one to talk to: the releases of
// k8s.io/kubernetes cannot be installed by name, because they replace the modules that they are made of; go.mod names them.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	os.Exit(cli.Run(app.NewAPIServerCommand()))
}
