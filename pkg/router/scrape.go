package router

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Limits of who scrapes. A scrape has nothing in common with the control socket but the
// parts that both ask.
const (
	scrapesAtOnce  = 2
	scrapeHeaders  = 8 << 10
	scrapeRead     = 5 * time.Second
	scrapeWrite    = scrapeWithin + 5*time.Second
	scrapeIdle     = time.Minute
	listenAgain    = 5 * time.Second
	scrapeShutdown = time.Second
)

// serveMetrics serves the metrics, where it is told to, until ctx ends. An address that
// cannot be had is tried again: containers are served without.
func (r *Router) serveMetrics(ctx context.Context) error {
	if r.config.MetricsAddr == "" {
		<-ctx.Done()
		return nil
	}
	reg, err := r.registry()
	if err != nil {
		return err
	}
	if !loopback(r.config.MetricsAddr) {
		r.log.Warn("metrics are served to whoever reaches this address, without a password and in clear", "address", r.config.MetricsAddr)
	}
	for ctx.Err() == nil {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", r.config.MetricsAddr)
		if err == nil {
			r.noteMetrics(nil)
			r.log.Info("metrics are served", "url", "http://"+l.Addr().String()+"/metrics")
			err = r.scrapes(ctx, l, reg)
		}
		if ctx.Err() != nil {
			return nil
		}
		r.noteMetrics(err)
		select {
		case <-ctx.Done():
		case <-time.After(listenAgain):
		}
	}
	return nil
}

// noteMetrics keeps why the metrics are not served, for the status.
func (r *Router) noteMetrics(err error) {
	r.mu.Lock()
	was := r.unmeasured
	r.unmeasured = err
	r.mu.Unlock()
	if err != nil && was == nil {
		r.log.Warn("metrics are not served; trying again", "address", r.config.MetricsAddr, "error", err)
	}
}

// unscraped is a problem line, none where metrics are served or not wanted.
func (r *Router) unscraped() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unmeasured == nil {
		return nil
	}
	return []string{fmt.Sprintf("metrics are not served at %s (--metrics-addr): %v", r.config.MetricsAddr, r.unmeasured)}
}

func (r *Router) scrapes(ctx context.Context, l net.Listener, reg *prometheus.Registry) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		EnableOpenMetrics:   true, // the only form that has exemplars
		MaxRequestsInFlight: scrapesAtOnce,
		Timeout:             scrapeWithin,
		ErrorHandling:       promhttp.HTTPErrorOnError,
		ErrorLog:            slog.NewLogLogger(r.log.Handler(), slog.LevelWarn),
	}))
	h := &http.Server{
		Handler: mux, ReadHeaderTimeout: scrapeRead, ReadTimeout: scrapeRead, WriteTimeout: scrapeWrite, IdleTimeout: scrapeIdle, MaxHeaderBytes: scrapeHeaders,
		ErrorLog: slog.NewLogLogger(r.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve metrics: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), scrapeShutdown)
	defer cancel()
	if h.Shutdown(grace) != nil {
		h.Close()
	}
	<-failed
	return nil
}

func loopback(addr string) bool {
	ap, err := netip.ParseAddrPort(addr)
	return err == nil && ap.Addr().IsLoopback()
}
