package router

import (
	"slices"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/names"
	"github.com/weave-cni/weave-cni/pkg/overlay"
)

// namingIn checks what is to be registered beside the names, which are.
func namingIn(in ctl.RegisterRequest, valid []string) (ipam.Naming, error) {
	out := ipam.Naming{Names: valid}
	if len(valid) > overlay.MaxNames {
		return out, ctl.Errorf(ctl.CodeInvalidConfig, "%d names: a container has at most %d", len(valid), overlay.MaxNames)
	}
	for _, s := range in.Services {
		v, err := names.ValidService(names.Service{Name: s.Name, Proto: s.Protocol, Port: s.Port})
		if err != nil {
			return ipam.Naming{}, ctl.Errorf(ctl.CodeInvalidConfig, "%v", err)
		}
		s = ctl.Service{Name: v.Name, Protocol: v.Proto, Port: v.Port}
		if !slices.Contains(out.Services, s) {
			out.Services = append(out.Services, s)
		}
	}
	for _, t := range in.Texts {
		if t == "" || len(t) > names.MaxText {
			return ipam.Naming{}, ctl.Errorf(ctl.CodeInvalidConfig, "a text of %d bytes: DNS takes 1 to %d", len(t), names.MaxText)
		}
		if !slices.Contains(out.Texts, t) {
			out.Texts = append(out.Texts, t)
		}
	}
	if len(out.Services) > names.MaxServices || len(out.Texts) > names.MaxTexts {
		return ipam.Naming{}, ctl.Errorf(ctl.CodeInvalidConfig, "%d services and %d texts: a container has at most %d and %d", len(out.Services), len(out.Texts), names.MaxServices, names.MaxTexts)
	}
	return out, nil
}
