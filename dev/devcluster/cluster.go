package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// options are what the caller asks of a cluster.
type options struct {
	Dir               string
	ControllerManager bool
	Audit             bool
	APIServerArgs     list
	// Detached: after the cluster is ready, the end of standard input means nothing.
	Detached bool
	// Pid and Port are the process to signal and the loopback port to connect to, for a cluster
	// whose supervisor sees other process ids and another loopback interface than its users.
	Pid, Port int
}

func (o *options) addFlags(flags *flag.FlagSet, args []string) {
	flags.BoolVar(&o.Audit, "audit", false, "")
	flags.Var(&o.APIServerArgs, "apiserver-arg", "")
	flags.Parse(args)
}

// report is the line of JSON that callers read when the cluster is ready.
type report struct {
	Dir              string `json:"dir"`
	Kubeconfig       string `json:"kubeconfig"`
	Server           string `json:"server"`
	CACert           string `json:"ca_cert"`
	CAKey            string `json:"ca_key"`
	Pid              int    `json:"pid"`
	AuditLog         string `json:"audit_log,omitempty"`
	ContainerdSocket string `json:"containerd_socket,omitempty"`
}

// A cluster is what one supervisor runs.
type cluster struct {
	options
	ca        *pki
	api       *http.Client
	ports     ports
	advertise string // the address under which pods reach the API server, in a cluster with a node
	processes map[string]*process
	died      chan *process
	stopped   chan struct{}
	commands  chan string
}

// ports on which servers listen, each on the loopback interface.
type ports struct{ etcd, peer, api, controllerManager int }

func newCluster(o options) (*cluster, error) {
	if err := os.MkdirAll(filepath.Join(o.Dir, "log"), 0o700); err != nil {
		return nil, err
	}
	ca, err := newPKI(filepath.Join(o.Dir, "pki"))
	if err != nil {
		return nil, err
	}
	return &cluster{
		options:   o,
		ca:        ca,
		processes: map[string]*process{},
		// Room for every server to die while nobody listens.
		died:     make(chan *process, 64),
		stopped:  make(chan struct{}),
		commands: make(chan string),
	}, nil
}

func (c *cluster) file(name string) string { return filepath.Join(c.Dir, name) }

// binary is the path of one of the cluster's servers.
func (c *cluster) binary(name string) string {
	if c.advertise != "" {
		return binary(node, name)
	}
	return binary(controlPlane, name)
}

// localServer is the API server's address for the cluster's own parts.
func (c *cluster) localServer() string { return fmt.Sprintf("https://127.0.0.1:%d", c.ports.api) }

// server is the API server's address for users on the host.
func (c *cluster) server() string {
	if c.Port != 0 {
		return fmt.Sprintf("https://127.0.0.1:%d", c.Port)
	}
	return c.localServer()
}

func (c *cluster) report() report {
	r := report{
		Dir:        c.Dir,
		Kubeconfig: c.file("admin.kubeconfig"),
		Server:     c.server(),
		CACert:     c.ca.file("ca.crt"),
		CAKey:      c.ca.file("ca.key"),
		Pid:        c.Pid,
	}
	if c.Audit {
		r.AuditLog = c.file("log/audit.log")
	}
	if c.advertise != "" {
		r.ContainerdSocket = containerdSocket(c.Dir)
	}
	return r
}

// connect prepares the supervisor's own client of the API server.
func (c *cluster) connect() error {
	pair, err := tls.LoadX509KeyPair(c.ca.file("admin.kubeconfig.crt"), c.ca.file("admin.kubeconfig.key"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.ca.cert)
	c.api = &http.Client{
		Timeout:   2 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}},
	}
	return nil
}

// get reads an object of the API; object may be nil.
func (c *cluster) get(path string, object any) error {
	answer, err := c.api.Get(c.localServer() + path)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", answer.Status, strings.TrimSpace(string(body)))
	}
	if object == nil {
		return nil
	}
	return json.Unmarshal(body, object)
}

// addUser writes a kubeconfig for another user of a running cluster and prints its path.
func addUser(dir, name string, groups []string) error {
	if dir == "" || name == "" {
		return fmt.Errorf("user needs --dir and --name")
	}
	ready, err := readReport(dir)
	if err != nil {
		return err
	}
	ca, err := loadPKI(filepath.Join(dir, "pki"))
	if err != nil {
		return err
	}
	// Names of users may hold slashes and colons; names of files are made of what is left.
	path := filepath.Join(dir, strings.NewReplacer("/", "_", ":", "_").Replace(name)+".kubeconfig")
	if err := ca.user(path, ready.Server, name, groups...); err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}

func readReport(dir string) (report, error) {
	var r report
	content, err := os.ReadFile(filepath.Join(dir, "cluster.json"))
	if err != nil {
		return r, fmt.Errorf("no cluster is running in %s", dir)
	}
	return r, json.Unmarshal(content, &r)
}
