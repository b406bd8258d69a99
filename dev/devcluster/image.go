package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"time"
)

// An image is a container image of one layer: programs of this host, and the libraries they need.
type image struct {
	Name       string
	User       string
	Entrypoint []string
	Files      []imageFile
	// Links are symbolic links, from path to target.
	Links map[string]string
}

type imageFile struct{ From, To string }

func writeImageCommand(flags *flag.FlagSet, args []string) error {
	out, entrypoint := flags.String("out", "", ""), flags.String("entrypoint", "", "")
	user := flags.String("user", "65532", "")
	// The name comes first, as in the usage; flag.Parse stops at it.
	var name string
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	flags.Parse(args)
	if !strings.Contains(name, ":") || *out == "" || *entrypoint == "" || flags.NArg() == 0 {
		return errors.New("image needs NAME:TAG, --out FILE, --entrypoint PATH and at least one file")
	}
	scratch, err := os.MkdirTemp("", "devcluster-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	i := image{Name: name, User: *user, Entrypoint: []string{*entrypoint}}
	for _, arg := range flags.Args() {
		from, to, found := strings.Cut(arg, "=")
		if !found {
			to = "/" + filepath.Base(from)
		}
		if from, err = withoutDebug(from, filepath.Join(scratch, strconv.Itoa(len(i.Files)))); err != nil {
			return err
		}
		i.Files = append(i.Files, imageFile{from, to})
	}
	return i.write(*out)
}

// withoutDebug copies a program without its debug information, which is most of what a debug build
// of Rust weighs. Names of functions stay. What is no program is taken as it is.
func withoutDebug(file, copied string) (string, error) {
	program, err := openProgram(file)
	if program == nil || err != nil {
		return file, err
	}
	program.Close()
	if out, err := exec.Command("strip", "--strip-debug", "-o", copied, file).CombinedOutput(); err != nil {
		return "", fmt.Errorf("strip %s: %w %s", file, err, out)
	}
	return copied, nil
}

// openProgram reads a compiled program; what is none gives nil.
func openProgram(path string) (*elf.File, error) {
	program, err := elf.Open(path)
	var format *elf.FormatError
	if errors.As(err, &format) || errors.Is(err, io.EOF) {
		return nil, nil
	}
	return program, err
}

// write makes an archive in the format of docker save. The same content gives the same bytes.
func (i image) write(out string) error {
	layer, err := i.layer()
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config": map[string]any{
			"User":       i.User,
			"Entrypoint": i.Entrypoint,
			"Env":        []string{"PATH=/usr/local/bin:/usr/bin:/bin"},
			"WorkingDir": "/",
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	if err != nil {
		return err
	}
	configName := fmt.Sprintf("%x.json", sha256.Sum256(config))
	manifest, err := json.Marshal([]map[string]any{{"Config": configName, "RepoTags": []string{i.Name}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, file := range []struct {
		name    string
		content []byte
	}{{configName, config}, {"layer.tar", layer}, {"manifest.json", manifest}} {
		if err := addFile(w, file.name, 0o644, file.content); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := os.WriteFile(out+".tmp", archive.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(out+".tmp", out)
}

func (i image) layer() ([]byte, error) {
	sources := map[string]string{}
	for _, file := range i.Files {
		sources[file.To] = file.From
		libraries, err := libraries(file.From)
		if err != nil {
			return nil, err
		}
		for _, library := range libraries {
			sources[library] = library
		}
	}
	folders := map[string]bool{}
	var paths []string
	for to := range sources {
		paths = append(paths, to)
	}
	for link := range i.Links {
		paths = append(paths, link)
	}
	for _, to := range paths {
		for folder := path.Dir(to); folder != "/"; folder = path.Dir(folder) {
			folders[folder] = true
		}
	}
	for folder := range folders {
		paths = append(paths, folder)
	}
	sort.Strings(paths)

	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, to := range paths {
		name := strings.TrimPrefix(to, "/")
		var err error
		if folders[to] {
			err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: time.Unix(0, 0)})
		} else if target, found := i.Links[to]; found {
			err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777, ModTime: time.Unix(0, 0)})
		} else {
			var content []byte
			if content, err = os.ReadFile(sources[to]); err == nil {
				err = addFile(w, name, 0o755, content)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return layer.Bytes(), nil
}

func addFile(w *tar.Writer, name string, mode int64, content []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content)), ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

// libraries lists what a dynamically linked program needs at run time, its loader first. It asks the
// loader, as ldd does. What is no such program needs nothing.
func libraries(program string) ([]string, error) {
	file, err := openProgram(program)
	if file == nil || err != nil {
		return nil, err
	}
	defer file.Close()
	var loader string
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			name, err := io.ReadAll(segment.Open())
			if err != nil {
				return nil, err
			}
			loader = string(bytes.TrimRight(name, "\x00"))
		}
	}
	if loader == "" {
		return nil, nil
	}
	program, err = filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	out, err := exec.Command(loader, "--list", program).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("not found")) {
		return nil, fmt.Errorf("cannot resolve the libraries of %s:\n%s", program, out)
	}
	found := []string{loader}
	for _, match := range regexp.MustCompile(`=> (/\S+) \(0x`).FindAllSubmatch(out, -1) {
		if library := string(match[1]); library != loader {
			found = append(found, library)
		}
	}
	return found, nil
}

// buildImages builds the workload program, for use on the host, and its image.
func buildImages(out string) error {
	if out == "" {
		return errors.New("images needs --out DIR")
	}
	if err := install(workloadTools); err != nil {
		return err
	}
	workload := filepath.Join(out, "workload")
	if err := goBuild(filepath.Join(devDir, "workload"), workload, ".", "-s -w", "CGO_ENABLED=0"); err != nil {
		return fmt.Errorf("cannot build dev/workload: %w", err)
	}
	busyboxPath, _ := busybox.path()
	opensslPath, _ := openssl.path()
	i := image{
		Name:       "localhost/spiffe-workload:dev",
		User:       "65532",
		Entrypoint: []string{"/usr/bin/workload"},
		Files: []imageFile{
			{workload, "/usr/bin/workload"},
			{opensslPath, "/usr/bin/openssl"},
			{busyboxPath, "/bin/busybox"},
		},
		Links: map[string]string{},
	}
	applets, err := exec.Command(busyboxPath, "--list").Output()
	if err != nil {
		return err
	}
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet != "busybox" {
			i.Links["/bin/"+applet] = "busybox"
		}
	}
	return i.write(filepath.Join(out, "workload.tar"))
}
