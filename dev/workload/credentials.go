package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// A source gives the X.509-SVID of this workload, and the bundles that it trusts.
type source interface {
	x509svid.Source
	x509bundle.Source
}

// credentials are the files of a pod's volume. They are read anew each time they are needed, so that
// a rotated certificate and a changed bundle count from the next connection on.
type credentials struct{ dir string }

func (c credentials) GetX509SVID() (*x509svid.SVID, error) {
	content, err := os.ReadFile(filepath.Join(c.dir, "credential-bundle.pem"))
	if err != nil {
		return nil, err
	}
	return x509svid.Parse(content, content)
}

func (c credentials) GetX509BundleForTrustDomain(domain spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return x509bundle.Load(domain, filepath.Join(c.dir, domain.Name()+".spiffe-trust-bundle.pem"))
}

// wait returns when the SVID and the bundle of its trust domain can be read.
func wait(files credentials, timeout time.Duration) error {
	for end := time.Now().Add(timeout); ; time.Sleep(100 * time.Millisecond) {
		svid, err := files.GetX509SVID()
		if err == nil {
			_, err = files.GetX509BundleForTrustDomain(svid.ID.TrustDomain())
		}
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}
