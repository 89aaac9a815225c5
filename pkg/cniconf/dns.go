package cniconf

import (
	"encoding/json"
	"fmt"
)

// Where it comes from how one container is given its resolver.
const (
	DNSAnnotation = "weave.network/dns" // of a pod; capability io.kubernetes.cri.pod-annotations
	DNSArg        = "WEAVE_DNS"         // of CNI_ARGS
)

// DNS is the capability "dns": what the container's user, or the kubelet, has chosen.
type DNS struct {
	Servers  []string `json:"servers"`
	Searches []string `json:"searches"`
	Options  []string `json:"options"`
}

// RequestedDNS gives what is said of one container's resolver, and where, by the best
// source that says anything: the pod's annotation, then CNI_ARGS. "" when none does.
func (c *Conf) RequestedDNS(args Args) (word, source string, err error) {
	word, err = c.RuntimeConfig.annotation(DNSAnnotation)
	if word != "" || err != nil {
		return word, "annotation " + DNSAnnotation, err
	}
	return args[DNSArg], "CNI_ARGS " + DNSArg, nil
}

// annotation looks at one annotation and at no other: what those hold is no business of ours.
func (r *RuntimeConfig) annotation(key string) (text string, err error) {
	if len(r.Annotations) == 0 {
		return "", nil
	}
	var all map[string]json.RawMessage // by the very key: a struct would match it in any case
	if err = json.Unmarshal(r.Annotations, &all); err == nil && all[key] != nil {
		err = json.Unmarshal(all[key], &text)
	}
	if err != nil {
		return "", fmt.Errorf("annotation %s: want a text, in an object of annotations", key)
	}
	return text, nil
}
