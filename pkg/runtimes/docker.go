package runtimes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
)

// DockerSocket is where dockerd listens.
const DockerSocket = "/run/docker.sock"

// Docker asks dockerd over its socket.
type Docker struct {
	Socket string // "" is DockerSocket
}

// maxDocker bounds an answer of dockerd, in bytes.
const maxDocker = 64 << 20

// Name is "docker".
func (Docker) Name() string { return NameDocker }

func (d Docker) get(ctx context.Context, path string, out any) error {
	socket := d.Socket
	if socket == "" {
		socket = DockerSocket
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if nobody(err) {
		return absent(err)
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocker))
	switch {
	case err != nil:
		return err
	case resp.StatusCode == http.StatusNotFound:
		return ErrGone
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("dockerd answers %s: %.200s", resp.Status, strings.TrimSpace(string(body)))
	}
	return json.Unmarshal(body, out)
}

// nobody reports whether an error says that nobody listens at a socket.
func nobody(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// List is GET /containers/json.
func (d Docker) List(ctx context.Context) ([]Container, error) {
	var list []struct {
		ID    string `json:"Id"`
		Names []string
		State string
	}
	if err := d.get(ctx, "/containers/json?all=1", &list); err != nil {
		return nil, err
	}
	var all []Container
	for _, e := range list {
		c := Container{Runtime: NameDocker, ID: e.ID, CNI: e.ID, State: dockerState(e.State)}
		for _, n := range e.Names {
			if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") { // "/web/db" is a link's
				c.Names = append(c.Names, n)
			}
		}
		all = append(all, c)
	}
	return all, nil
}

func dockerState(state string) State {
	switch state {
	case "running", "paused":
		return Running
	case "created":
		return Created
	}
	return Stopped
}

// Look is GET /containers/ID/json.
func (d Docker) Look(ctx context.Context, c Container) (Container, error) {
	var e struct {
		ID    string `json:"Id"`
		Name  string
		State struct {
			Status string
			Pid    int
		}
		HostConfig      struct{ NetworkMode string }
		NetworkSettings struct{ Networks map[string]struct{} }
	}
	if err := d.get(ctx, "/containers/"+url.PathEscape(c.ID)+"/json", &e); err != nil {
		return Container{}, err
	}
	c = Container{Runtime: NameDocker, ID: e.ID, CNI: e.ID, Names: []string{strings.TrimPrefix(e.Name, "/")}, PID: e.State.Pid, State: dockerState(e.State.Status)}
	mode := e.HostConfig.NetworkMode
	c.HostNet = mode == "host"
	if id, ok := strings.CutPrefix(mode, "container:"); ok {
		c.Shares = NameDocker + ":" + id
	}
	if c.State == Running && c.PID > 0 {
		c.NetNS = fmt.Sprintf("/proc/%d/ns/net", c.PID)
	}
	for name := range e.NetworkSettings.Networks {
		c.Networks = append(c.Networks, name)
	}
	return c, nil
}
