package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// untar gives the entries of an archive, in order, and their content.
func untar(t *testing.T, archive []byte) ([]*tar.Header, map[string][]byte) {
	t.Helper()
	var headers []*tar.Header
	contents := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		header, err := r.Next()
		if err == io.EOF {
			return headers, contents
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		headers, contents[header.Name] = append(headers, header), content
	}
}

func testImage(t *testing.T) image {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program")
	write(t, file, "#!/bin/true\n")
	return image{
		Name:       "localhost/test:dev",
		User:       "65532",
		Entrypoint: []string{"/usr/bin/program"},
		Files:      []imageFile{{file, "/usr/bin/program"}},
		Links:      map[string]string{"/bin/alias": "../usr/bin/program"},
	}
}

func TestAnImageHoldsWhatItsManifestAndConfigurationSay(t *testing.T) {
	out := filepath.Join(t.TempDir(), "image.tar")
	if err := testImage(t).write(out); err != nil {
		t.Fatal(err)
	}
	archive, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	_, files := untar(t, archive)
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	if len(manifest) != 1 || !slices.Equal(manifest[0].RepoTags, []string{"localhost/test:dev"}) {
		t.Fatalf("manifest: %s", files["manifest.json"])
	}
	configuration, layer := files[manifest[0].Config], files[manifest[0].Layers[0]]
	if name := fmt.Sprintf("%x.json", sha256.Sum256(configuration)); manifest[0].Config != name {
		t.Errorf("the configuration %s is named %s", name, manifest[0].Config)
	}
	var c struct {
		Config struct {
			User       string
			Entrypoint []string
		}
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(configuration, &c); err != nil {
		t.Fatal(err)
	}
	if digest := fmt.Sprintf("sha256:%x", sha256.Sum256(layer)); !slices.Equal(c.RootFS.DiffIDs, []string{digest}) {
		t.Errorf("the layer %s is declared as %v", digest, c.RootFS.DiffIDs)
	}
	if c.Config.User != "65532" || !slices.Equal(c.Config.Entrypoint, []string{"/usr/bin/program"}) {
		t.Errorf("configuration: %s", configuration)
	}

	headers, contents := untar(t, layer)
	var names []string
	for _, header := range headers {
		names = append(names, header.Name)
	}
	if !slices.Equal(names, []string{"bin/", "bin/alias", "usr/", "usr/bin/", "usr/bin/program"}) {
		t.Errorf("the layer holds %v", names)
	}
	if string(contents["usr/bin/program"]) != "#!/bin/true\n" || headers[4].Mode != 0o755 {
		t.Errorf("the program is %v: %q", headers[4], contents["usr/bin/program"])
	}
	if headers[1].Linkname != "../usr/bin/program" {
		t.Errorf("the link leads to %q", headers[1].Linkname)
	}
}

func TestTheSameContentGivesTheSameBytes(t *testing.T) {
	i := testImage(t)
	var archives [2][]byte
	for number := range archives {
		out := filepath.Join(t.TempDir(), "image.tar")
		if err := i.write(out); err != nil {
			t.Fatal(err)
		}
		archives[number], _ = os.ReadFile(out)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two archives of one image differ")
	}
}

func TestAProgramBringsItsLoaderAndLibraries(t *testing.T) {
	found, err := libraries("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 2 {
		t.Errorf("/bin/sh needs %v", found)
	}
	for _, library := range found {
		if !exists(library) {
			t.Errorf("there is no %s", library)
		}
	}
	if found, err := libraries("image.go"); err != nil || found != nil {
		t.Errorf("a text needs %v, %v", found, err)
	}
}
