package ctl

// DNSTraffic is what the name server has done since it started, and what it keeps.
type DNSTraffic struct {
	Queries   map[string]uint64 `json:"queries"` // by how they ended
	Waiting   int               `json:"waiting"` // now, until it is their client's turn to ask an upstream
	Cache     DNSCache          `json:"cache"`
	Upstreams []DNSUpstream     `json:"upstreams"` // those that were asked
}

// DNSCache is what is kept of others' answers.
type DNSCache struct {
	Entries int    `json:"entries"`
	Bytes   int    `json:"bytes"`
	Limit   int    `json:"limit"` // of bytes
	Hits    uint64 `json:"hits"`
	Misses  uint64 `json:"misses"`
}

// DNSUpstream is one server for names of others.
type DNSUpstream struct {
	Addr        string  `json:"addr"` // IP:port; "" for those that are too many to be counted each
	Answered    uint64  `json:"answered"`
	Failed      uint64  `json:"failed"` // silent, refused, or without an answer that can be used
	MeanSeconds float64 `json:"meanSeconds"`
}
