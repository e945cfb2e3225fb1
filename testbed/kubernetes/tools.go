//go:build tools

package main

// kubectl is built from its own package; named here so that `go mod tidy` keeps what it needs.
import _ "k8s.io/kubernetes/cmd/kubectl"
