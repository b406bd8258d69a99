package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

func show(files credentials) error {
	svid, err := files.GetX509SVID()
	if err != nil {
		return err
	}
	leaf := svid.Certificates[0]
	fmt.Println("SPIFFE ID ", svid.ID)
	fmt.Println("DNS names ", strings.Join(leaf.DNSNames, " "))
	fmt.Println("valid from", leaf.NotBefore.UTC().Format(time.RFC3339))
	fmt.Println("valid to  ", leaf.NotAfter.UTC().Format(time.RFC3339))
	for _, cert := range svid.Certificates {
		fmt.Printf("chain      %s, issued by %s\n", name(cert), cert.Issuer)
	}
	bundles, err := filepath.Glob(filepath.Join(files.dir, "*.spiffe-trust-bundle.pem"))
	if err != nil {
		return err
	}
	for _, path := range bundles {
		domain, err := spiffeid.TrustDomainFromString(strings.TrimSuffix(filepath.Base(path), ".spiffe-trust-bundle.pem"))
		if err != nil {
			return err
		}
		bundle, err := files.GetX509BundleForTrustDomain(domain)
		if err != nil {
			return err
		}
		fmt.Printf("bundle     %s, %d root(s)\n", domain, len(bundle.X509Authorities()))
	}
	return nil
}

func name(cert *x509.Certificate) string {
	if len(cert.URIs) != 0 {
		return cert.URIs[0].String()
	}
	return cert.Subject.String()
}

// verify judges a chain as go-spiffe does for a TLS peer.
func verify(trustDomain, bundlePath, chainPath string) error {
	domain, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return err
	}
	bundle, err := x509bundle.Load(domain, bundlePath)
	if err != nil {
		return err
	}
	rest, err := os.ReadFile(chainPath)
	if err != nil {
		return err
	}
	var chain []*x509.Certificate
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		// A credential bundle has the key before the chain.
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return err
		}
		chain = append(chain, cert)
	}
	id, _, err := x509svid.Verify(chain, bundle)
	if err != nil {
		return err
	}
	fmt.Println(id)
	return nil
}
