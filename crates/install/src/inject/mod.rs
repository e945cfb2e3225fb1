//! Injection: a pod and the installation's values in, the pod with its proxy out.
