package cniconf

import (
	"fmt"

	"github.com/weave-cni/weave-cni/pkg/endpoint"
)

// Where the endpoint of one container comes from.
const (
	EndpointAnnotation = "weave.network/endpoint" // of a pod; capability io.kubernetes.cri.pod-annotations
	EndpointArg        = "WEAVE_ENDPOINT"         // of CNI_ARGS
)

// RequestedEndpoint gives the endpoint that is asked for one container, from the best
// source that names one: the pod's annotation, then CNI_ARGS. The zero Endpoint when
// none does.
func (c *Conf) RequestedEndpoint(args Args) (endpoint.Endpoint, error) {
	annotation, err := c.RuntimeConfig.annotation(EndpointAnnotation)
	if err != nil {
		return endpoint.Endpoint{}, err
	}
	for _, s := range []struct{ source, text string }{
		{"annotation " + EndpointAnnotation, annotation}, {"CNI_ARGS " + EndpointArg, args[EndpointArg]},
	} {
		if s.text == "" {
			continue
		}
		e, err := endpoint.ParseBare(s.text)
		if err != nil {
			return endpoint.Endpoint{}, fmt.Errorf("%s: %w", s.source, err)
		}
		return e, nil
	}
	return endpoint.Endpoint{}, nil
}

// ConfiguredEndpoint reads the endpoint of all containers of a list, from the key that
// holds it. It takes no options: names are weavedns' business, which does not see it.
func ConfiguredEndpoint(key, text string) (endpoint.Endpoint, error) {
	if text == "" {
		return endpoint.Endpoint{}, nil
	}
	e, err := endpoint.ParseBare(text)
	if err != nil {
		return endpoint.Endpoint{}, fmt.Errorf("%s: %w", key, err)
	}
	if e.HasOptions() {
		return endpoint.Endpoint{}, fmt.Errorf("%s %q: options are of one container: ask for them in %s or in annotation %s", key, clip(text), EndpointArg, EndpointAnnotation)
	}
	return e, nil
}
