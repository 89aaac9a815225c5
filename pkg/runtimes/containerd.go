package runtimes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	namespaces "github.com/containerd/containerd/api/services/namespaces/v1"
	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// ContainerdSocket is where containerd listens.
const ContainerdSocket = "/run/containerd/containerd.sock"

// Containerd asks containerd about the containers of all its namespaces, but
// docker's, of which dockerd tells.
type Containerd struct {
	Socket string // "" is ContainerdSocket
}

// maxContainerd bounds an answer: a list has every container's specification.
const maxContainerd = 64 << 20

// Name is "containerd".
func (Containerd) Name() string { return NameContainerd }

// dial makes a connection; the caller closes it.
func (d Containerd) dial(ctx context.Context) (*grpc.ClientConn, error) {
	socket := d.Socket
	if socket == "" {
		socket = ContainerdSocket
	}
	probe, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if nobody(err) {
		return nil, absent(err)
	}
	if err != nil {
		return nil, err
	}
	probe.Close()
	return grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxContainerd)))
}

// in says which of containerd's namespaces a call is about.
func in(ctx context.Context, namespace string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace)
}

// List asks each namespace.
func (d Containerd) List(ctx context.Context) ([]Container, error) {
	conn, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	list, err := namespaces.NewNamespacesClient(conn).List(ctx, &namespaces.ListNamespacesRequest{})
	if err != nil {
		return nil, plain(err)
	}
	var all []Container
	for _, ns := range list.GetNamespaces() {
		if ns.GetName() == "moby" || ns.GetName() == "plugins.moby" {
			continue
		}
		some, err := listIn(in(ctx, ns.GetName()), conn, ns.GetName())
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

func listIn(ctx context.Context, conn *grpc.ClientConn, namespace string) ([]Container, error) {
	list, err := containers.NewContainersClient(conn).List(ctx, &containers.ListContainersRequest{})
	if err != nil {
		return nil, plain(err)
	}
	running, err := tasks.NewTasksClient(conn).List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, plain(err)
	}
	byID := map[string]*task.Process{}
	for _, t := range running.GetTasks() {
		byID[t.GetID()] = t
	}
	var all []Container
	for _, c := range list.GetContainers() {
		all = append(all, fromContainerd(namespace, c, byID[c.GetID()]))
	}
	return all, nil
}

// Look asks for one container and its task.
func (d Containerd) Look(ctx context.Context, c Container) (Container, error) {
	conn, err := d.dial(ctx)
	if err != nil {
		return Container{}, err
	}
	defer conn.Close()
	ctx = in(ctx, c.Namespace)
	got, err := containers.NewContainersClient(conn).Get(ctx, &containers.GetContainerRequest{ID: c.ID})
	if err != nil {
		return Container{}, plain(err)
	}
	t, err := tasks.NewTasksClient(conn).Get(ctx, &tasks.GetRequest{ContainerID: c.ID})
	if err = plain(err); err != nil && !errors.Is(err, ErrGone) {
		return Container{}, err
	}
	full := fromContainerd(c.Namespace, got.GetContainer(), t.GetProcess())
	if _, err := os.Stat(full.NetNS); full.Runtime == NameCRI && err != nil {
		full.NetNS, full.State = "", Stopped // the pod has ended, and is listed until it is removed
	}
	return full, nil
}

// plain is a gRPC error without its dress.
func plain(err error) error {
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.NotFound:
		return fmt.Errorf("%w: %s", ErrGone, status.Convert(err).Message())
	}
	return errors.New(status.Convert(err).Message())
}

// spec is what we read of an OCI specification.
type spec struct {
	Annotations map[string]string `json:"annotations"`
	Linux       struct {
		Namespaces []struct {
			Type string `json:"type"`
			Path string `json:"path"`
		} `json:"namespaces"`
	} `json:"linux"`
}

// network is the path of the network namespace that a specification names, and
// whether it has any.
func (s spec) network() (path string, own bool) {
	for _, n := range s.Linux.Namespaces {
		if n.Type == "network" {
			return n.Path, true
		}
	}
	return "", false
}

// fromContainerd puts together what containerd says of a container and its task (nil: none).
func fromContainerd(namespace string, c *containers.Container, t *task.Process) Container {
	out := Container{Runtime: NameContainerd, Namespace: namespace, ID: c.GetID(), CNI: namespace + "-" + c.GetID(), State: Created}
	var s spec
	_ = json.Unmarshal(c.GetSpec().GetValue(), &s) // one that cannot be read has no namespace that we know of
	path, own := s.network()
	out.HostNet, out.NetNS = !own, path
	switch t.GetStatus() {
	case task.Status_CREATED, task.Status_RUNNING, task.Status_PAUSED, task.Status_PAUSING:
		out.State, out.PID = Running, int(t.GetPid())
		if path == "" {
			out.NetNS = fmt.Sprintf("/proc/%d/ns/net", out.PID)
		}
	case task.Status_STOPPED:
		out.State = Stopped
	}
	if isCRI(&out, c.GetLabels(), s.Annotations) || isNerdctl(&out, c.GetLabels()) {
		return out
	}
	return out
}

// Hook is a program that the runtime is to run when it has made a container's
// namespaces, before the container's own first process.
type Hook struct {
	Path string
	Args []string // with the program's name
	Env  []string
}

// hookTimeout is how long runc lets a hook run, in seconds.
const hookTimeout = 40

// AddHook writes a hook into the container's specification, after those that it
// has. It is run at the next start, and at every one after.
func (d Containerd) AddHook(ctx context.Context, c Container, h Hook) error {
	return d.edit(ctx, c, func(spec []byte) ([]byte, error) { return withHook(spec, h) })
}

// DropHook takes the hooks away whose last argument is the given one. A
// container that is gone is success.
func (d Containerd) DropHook(ctx context.Context, c Container, last string) error {
	err := d.edit(ctx, c, func(spec []byte) ([]byte, error) { return withoutHook(spec, last) })
	if errors.Is(err, ErrGone) {
		return nil
	}
	return err
}

// edit changes a container's specification.
func (d Containerd) edit(ctx context.Context, c Container, change func([]byte) ([]byte, error)) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	conn, err := d.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx = in(ctx, c.Namespace)
	client := containers.NewContainersClient(conn)
	got, err := client.Get(ctx, &containers.GetContainerRequest{ID: c.ID})
	if err != nil {
		return plain(err)
	}
	old := got.GetContainer().GetSpec()
	text, err := change(old.GetValue())
	if err != nil {
		return fmt.Errorf("the specification of container %s: %w", c, err)
	}
	if text == nil {
		return nil
	}
	_, err = client.Update(ctx, &containers.UpdateContainerRequest{
		Container:  &containers.Container{ID: c.ID, Spec: &anypb.Any{TypeUrl: old.GetTypeUrl(), Value: text}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"spec"}},
	})
	return plain(err)
}
