// Builds nerdctl for scripts/e2e/nerdctl.sh; tigron is of its tests only.
module nerdctlbuild

go 1.24.0

require github.com/containerd/nerdctl/v2 v2.1.2

replace github.com/containerd/nerdctl/mod/tigron => ./stub
