package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// pki is the certificate authority of one cluster. Its files stay in the cluster's folder, so that
// tests can make certificates of their own.
type pki struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

const lifetime = 30 * 24 * time.Hour

func newPKI(dir string) (*pki, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "devcluster"},
		NotBefore:             time.Now().Add(-time.Minute),
		NotAfter:              time.Now().Add(lifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	ca := &pki{dir: dir, key: key}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	if err := ca.write("ca", der, key); err != nil {
		return nil, err
	}
	// RSA, as consumers of service-account tokens expect RS256.
	tokens, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	return ca, ca.writeKey("service-accounts", tokens)
}

func loadPKI(dir string) (*pki, error) {
	ca := &pki{dir: dir}
	certPEM, err := os.ReadFile(ca.file("ca.crt"))
	if err != nil {
		return nil, err
	}
	keyPEM, err := os.ReadFile(ca.file("ca.key"))
	if err != nil {
		return nil, err
	}
	certBlock, _ := pem.Decode(certPEM)
	keyBlock, _ := pem.Decode(keyPEM)
	if certBlock == nil || keyBlock == nil {
		return nil, fmt.Errorf("%s holds no certificate authority", dir)
	}
	if ca.cert, err = x509.ParseCertificate(certBlock.Bytes); err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, err
	}
	ca.key = key.(crypto.Signer)
	return ca, nil
}

// issue writes name.crt and name.key. Groups are organizations, as Kubernetes reads them.
func (ca *pki) issue(name, user string, groups []string, dns []string, ips ...string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: user, Organization: groups},
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     time.Now().Add(lifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:     dns,
	}
	for _, ip := range ips {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return err
	}
	return ca.write(name, der, key)
}

// user issues a client certificate and writes a kubeconfig that holds it.
func (ca *pki) user(path, server, user string, groups ...string) error {
	name := filepath.Base(path)
	if err := ca.issue(name, user, groups, nil); err != nil {
		return err
	}
	var data [3]string
	for i, file := range []string{"ca.crt", name + ".crt", name + ".key"} {
		content, err := os.ReadFile(ca.file(file))
		if err != nil {
			return err
		}
		data[i] = base64.StdEncoding.EncodeToString(content)
	}
	return os.WriteFile(path, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: devcluster, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: devcluster, user: {client-certificate-data: %s, client-key-data: %s}}]
contexts: [{name: devcluster, context: {cluster: devcluster, user: devcluster}}]
current-context: devcluster
`, server, data[0], data[1], data[2]), 0o600)
}

func (ca *pki) file(name string) string { return filepath.Join(ca.dir, name) }

func (ca *pki) write(name string, der []byte, key crypto.Signer) error {
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(ca.file(name+".crt"), block, 0o600); err != nil {
		return err
	}
	return ca.writeKey(name, key)
}

func (ca *pki) writeKey(name string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return os.WriteFile(ca.file(name+".key"), block, 0o600)
}

func serial() *big.Int {
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err)
	}
	return number
}
