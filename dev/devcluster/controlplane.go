package main

import (
	"fmt"
	"os"
	"time"
)

const (
	serviceIP    = "10.96.0.1"
	serviceRange = "10.96.0.0/16"
	auditPolicy  = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
`
)

// runControlPlane is a control plane in the foreground.
func runControlPlane(o options) error {
	if err := build(controlPlane); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "devcluster-")
	if err != nil {
		return err
	}
	o.Dir, o.Pid = dir, os.Getpid()
	reaper, err := startReaper(dir, nil)
	if err != nil {
		return err
	}
	defer reaper.finish()
	c, err := newCluster(o)
	if err != nil {
		return err
	}
	for _, port := range []*int{&c.ports.etcd, &c.ports.peer, &c.ports.api, &c.ports.controllerManager} {
		if *port, err = reservePort(); err != nil {
			return err
		}
	}
	return c.supervise(c.startControlPlane)
}

func (c *cluster) startControlPlane() error {
	if err := c.startEtcd(); err != nil {
		return err
	}
	if err := c.startAPIServer(); err != nil {
		return err
	}
	if err := c.connect(); err != nil {
		return err
	}
	if err := c.awaitAPIServer(); err != nil {
		return err
	}
	if !c.ControllerManager {
		return nil
	}
	return c.startControllerManager()
}

func (c *cluster) startEtcd() error {
	client, peer := fmt.Sprintf("http://127.0.0.1:%d", c.ports.etcd), fmt.Sprintf("http://127.0.0.1:%d", c.ports.peer)
	return c.start("etcd", c.binary("etcd"),
		"--data-dir="+c.file("etcd"),
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer,
		"--socket-reuse-port",
		// The only member elects itself; there is nobody to wait for.
		"--heartbeat-interval=10", "--election-timeout=100",
		// The data lives as long as the cluster.
		"--unsafe-no-fsync")
}

func (c *cluster) startAPIServer() error {
	addresses := []string{"127.0.0.1", serviceIP}
	bind := []string{"--bind-address=127.0.0.1"}
	if c.advertise != "" {
		addresses = append(addresses, c.advertise)
		bind = []string{"--bind-address=0.0.0.0", "--advertise-address=" + c.advertise}
	}
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	if err := c.ca.issue("apiserver", "kube-apiserver", nil, names, addresses...); err != nil {
		return err
	}
	if err := c.ca.user(c.file("admin.kubeconfig"), c.server(), "admin", "system:masters"); err != nil {
		return err
	}
	args := append(bind,
		fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", c.ports.etcd),
		fmt.Sprintf("--secure-port=%d", c.ports.api),
		"--permit-port-sharing",
		"--tls-cert-file="+c.ca.file("apiserver.crt"),
		"--tls-private-key-file="+c.ca.file("apiserver.key"),
		"--client-ca-file="+c.ca.file("ca.crt"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-signing-key-file="+c.ca.file("service-accounts.key"),
		"--service-account-key-file="+c.ca.file("service-accounts.key"),
		"--service-cluster-ip-range="+serviceRange,
		"--allow-privileged=true",
		// The node is named localhost, so that exec and logs need no other address.
		"--kubelet-preferred-address-types=Hostname",
		"--kubelet-client-certificate="+c.ca.file("admin.kubeconfig.crt"),
		"--kubelet-client-key="+c.ca.file("admin.kubeconfig.key"),
		"--kubelet-certificate-authority="+c.ca.file("ca.crt"),
	)
	if !c.ControllerManager {
		// Nobody makes the default service accounts that this plugin demands.
		args = append(args, "--disable-admission-plugins=ServiceAccount")
	}
	if c.Audit {
		policy := c.file("audit-policy.yaml")
		if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
			return err
		}
		args = append(args, "--audit-policy-file="+policy, "--audit-log-path="+c.report().AuditLog)
	}
	return c.start(apiServer, c.binary("kube-apiserver"), append(args, c.APIServerArgs...)...)
}

func (c *cluster) awaitAPIServer() error {
	return c.await("kube-apiserver", time.Minute, func() error { return c.get("/readyz", nil) })
}

func (c *cluster) startControllerManager() error {
	config, err := c.component("kube-controller-manager")
	if err != nil {
		return err
	}
	err = c.start("controller-manager", c.binary("kube-controller-manager"), append(config,
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", c.ports.controllerManager),
		"--permit-port-sharing",
		"--leader-elect=false",
		// Its controllers ask for a token each, which the usual limit stretches over seconds.
		"--kube-api-qps=1000", "--kube-api-burst=1000",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file="+c.ca.file("service-accounts.key"),
		"--root-ca-file="+c.ca.file("ca.crt"),
		"--cluster-signing-cert-file="+c.ca.file("ca.crt"),
		"--cluster-signing-key-file="+c.ca.file("ca.key"),
	)...)
	if err != nil {
		return err
	}
	return c.await("the default service account", time.Minute, func() error {
		return c.get("/api/v1/namespaces/default/serviceaccounts/default", nil)
	})
}

// component makes the credentials of one of Kubernetes' own parts and the flags that point to them.
func (c *cluster) component(name string) ([]string, error) {
	path := c.file(name + ".kubeconfig")
	if err := c.ca.user(path, c.localServer(), "system:"+name); err != nil {
		return nil, err
	}
	return []string{"--kubeconfig=" + path, "--authentication-kubeconfig=" + path, "--authorization-kubeconfig=" + path}, nil
}
