package ctl

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Bounds of a request and a reply, in bytes.
const (
	MaxRequest = 1 << 20 // GC of a thousand attachments lists them all
	MaxReply   = 16 << 20
	maxHead    = 16 << 10 // of a reply
)

const redialEvery = 20 * time.Millisecond

// Client calls the router. It needs no Close.
//
// It speaks HTTP/1.0 by itself, one connection a call: every CNI call starts up
// to four processes that make one call each, and linking net/http would cost
// each of them 3.5 MB and a third of its start-up time.
type Client struct {
	socket   string
	patience time.Duration
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
	return &Client{socket: socket, patience: patience}
}

// unavailable marks that no router accepted the connection.
type unavailable struct{ cause error }

func (u unavailable) Error() string { return u.cause.Error() }
func (u unavailable) Unwrap() error { return u.cause }

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
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

// PID is the process that listens at the router's socket, asked of the kernel: so also that of
// a router which hangs. It is 0 where that process cannot be seen from here.
func (c *Client) PID(ctx context.Context) (int, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var who *syscall.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		who, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if failed != nil {
		return 0, failed
	}
	return int(who.Pid), nil
}

// waited says how long a call waited for a router, if it did.
func (c *Client) waited() string {
	if c.patience == 0 {
		return ""
	}
	return fmt.Sprintf("waited %v; ", c.patience)
}

// NotSent reports whether a call failed because nobody took its connection: then
// nothing of it was done.
func NotSent(err error) bool { return errors.As(err, new(unavailable)) }

// IsUnavailable reports whether a call failed because no router answered at its
// socket: none is running, or it ended before it answered.
func IsUnavailable(err error) bool {
	return errors.As(err, new(unavailable)) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// What a call says that the router did not answer. Our plugins hand it on as it is.
const (
	noAnswer = "the weave router does not answer"
	late     = "the weave router did not answer in time"
	broken   = "call to the weave router broke off"
)

// TellsNoAnswer reports whether an error's text has such a word in it. A runtime, and a
// plugin that calls ours, hand the text on and lose the code.
func TellsNoAnswer(text string) bool {
	return strings.Contains(text, noAnswer) || strings.Contains(text, late) || strings.Contains(text, broken)
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
			fmt.Sprintf(noAnswer+" at %s", c.socket),
			fmt.Sprintf("%sis weaver running on this host? (%v)", c.waited(), err)}, silent{err})
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), ctx.Err() != nil:
		return &Error{CodeTryAgain, late,
			path + "; if it hangs (weave status says so), a restart costs no packet: systemctl restart weaver"}
	default:
		return fmt.Errorf("%w%w", &Error{CodeTryAgain, broken, err.Error()}, silent{err})
	}
}

// silent keeps an error in the chain for errors.As without printing it twice.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

func (c *Client) call(ctx context.Context, path string, in, out any) error {
	text, err := request(path, in)
	if err != nil {
		return err
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write(text); err != nil {
		return err
	}
	status, body, err := readReply(conn)
	if err != nil {
		return err
	}
	if status >= 400 {
		e := &Error{}
		if json.Unmarshal(body, e) != nil || e.Msg == "" {
			return Errorf(CodeInternal, "weave router: HTTP status %d", status)
		}
		return e
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(body, out)
}

// request is the whole request. A trace that the runtime has begun is handed on.
func request(path string, in any) ([]byte, error) {
	method, body := "GET", []byte(nil)
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, err
		}
		method = "POST"
	}
	trace := ""
	if t := os.Getenv("TRACEPARENT"); len(t) == 55 && !strings.ContainsAny(t, "\r\n") {
		trace = "Traceparent: " + t + "\r\n"
	}
	head := fmt.Sprintf("%s %s HTTP/1.0\r\nHost: weave\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n", method, path, len(body), trace)
	return append([]byte(head), body...), nil
}

// readReply reads a reply to its end: the length that it states, else the end
// of the connection. A reply cut short is io.ErrUnexpectedEOF.
func readReply(conn io.Reader) (status int, body []byte, err error) {
	r := bufio.NewReader(io.LimitReader(conn, maxHead+MaxReply))
	line, err := readLine(r)
	if err != nil {
		return 0, nil, err
	}
	_, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	if status, err = strconv.Atoi(code); err != nil || !strings.HasPrefix(line, "HTTP/1.") {
		return 0, nil, fmt.Errorf("no HTTP reply: %.60q", line)
	}
	length, head := int64(-1), 0
	for {
		if line, err = readLine(r); err != nil {
			return 0, nil, err
		}
		if line == "" {
			break
		}
		if head += len(line); head > maxHead {
			return 0, nil, errors.New("no HTTP reply: its head does not end")
		}
		if key, value, _ := strings.Cut(line, ":"); strings.EqualFold(key, "Content-Length") {
			if length, err = strconv.ParseInt(strings.TrimSpace(value), 10, 64); err != nil || length < 0 || length > MaxReply {
				return 0, nil, fmt.Errorf("no HTTP reply: length %.20q", value)
			}
		}
	}
	if length < 0 {
		body, err = io.ReadAll(r)
		return status, body, err
	}
	body = make([]byte, length)
	if _, err = io.ReadFull(r, body); errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return status, body, err
}

// readLine reads a line of at most the reader's buffer, without its end.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", errors.New("no HTTP reply: a line does not end")
	}
	if err != nil {
		if len(line) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return "", err
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}
