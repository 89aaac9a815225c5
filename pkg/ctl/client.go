package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// MaxBody bounds a request and a reply, in bytes.
const (
	MaxRequest = 1 << 20 // GC of a thousand attachments lists them all
	MaxReply   = 16 << 20
)

const redialEvery = 20 * time.Millisecond

// Client calls the router. Make it with Dial; it needs no Close.
type Client struct {
	socket   string
	patience time.Duration
	http     *http.Client
}

// New makes a client for the router behind a socket; "" means DefaultSocket.
//
// patience is how long a call waits for the router to come (back): a call that
// cannot connect within it fails with CodeTryAgain. A call that has connected
// is bounded only by its context.
func New(socket string, patience time.Duration) *Client {
	if socket == "" {
		socket = DefaultSocket
	}
	c := &Client{socket: socket, patience: patience}
	c.http = &http.Client{Transport: &http.Transport{DialContext: c.dial, MaxIdleConns: 1}}
	return c
}

// unavailable marks that no router accepted the connection.
type unavailable struct{ cause error }

func (u unavailable) Error() string { return u.cause.Error() }

func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	deadline := time.Now().Add(c.patience)
	for {
		conn, err := d.DialContext(ctx, "unix", c.socket)
		if err == nil {
			return conn, nil
		}
		if time.Until(deadline) < redialEvery {
			return nil, unavailable{err}
		}
		select {
		case <-ctx.Done():
			return nil, unavailable{err}
		case <-time.After(redialEvery):
		}
	}
}

// IsUnavailable reports whether a call failed because no router answered at its
// socket: none is running, or it ended before it answered.
func IsUnavailable(err error) bool {
	return errors.As(err, new(unavailable)) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// Call posts a request (nil: a GET) and decodes the reply into out unless that
// is nil. Every error it returns is, or wraps, an *Error.
func (c *Client) Call(ctx context.Context, path string, in, out any) error {
	err := c.call(ctx, path, in, out)
	var coded *Error
	switch {
	case err == nil || errors.As(err, &coded):
		return err
	case errors.As(err, new(unavailable)):
		return fmt.Errorf("%w%w", &Error{CodeTryAgain,
			fmt.Sprintf("the weave router does not answer at %s", c.socket),
			fmt.Sprintf("waited %v; is weaver running on this host? (%v)", c.patience, err)}, silent{err})
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{CodeTryAgain, "the weave router did not answer in time", path}
	default:
		return fmt.Errorf("%w%w", &Error{CodeTryAgain, "call to the weave router broke off", err.Error()}, silent{err})
	}
}

// silent keeps an error in the chain for errors.As without printing it twice.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

func (c *Client) call(ctx context.Context, path string, in, out any) error {
	req, err := request(ctx, path, in)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxReply))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 400 {
		e := &Error{}
		if json.Unmarshal(body, e) != nil || e.Msg == "" {
			return Errorf(CodeInternal, "weave router: %s", resp.Status)
		}
		return e
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(body, out)
}

func request(ctx context.Context, path string, in any) (*http.Request, error) {
	if in == nil {
		return http.NewRequestWithContext(ctx, http.MethodGet, "http://weave"+path, nil)
	}
	body, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://weave"+path, bytes.NewReader(body))
	if err == nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, err
}
