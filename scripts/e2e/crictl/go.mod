// Builds crictl for scripts/e2e/dns.sh: by itself its module cannot be installed.
module crictlbuild

go 1.26.2

require sigs.k8s.io/cri-tools v1.36.0
