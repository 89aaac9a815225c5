package hostfw

// Stats is what the firewall holds, and what was done for it.
type Stats struct {
	Elements map[string]int `json:"elements"` // by the name of the set, as last written
	Repairs  uint64         `json:"repairs"`  // times that rules were written again which somebody had changed
}

// Stats tells the present.
func (f *Firewall) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := Stats{Elements: map[string]int{}, Repairs: f.repairs}
	for _, set := range f.plan.sets {
		s.Elements[set.spec.Name] = 0
		for _, e := range set.elems {
			if !e.IntervalEnd {
				s.Elements[set.spec.Name]++
			}
		}
	}
	return s
}
