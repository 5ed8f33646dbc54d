package kernels

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// The checked-in PTX is what the compiler makes of the sources, text for text.
func TestPTXIsThatOfTheSources(t *testing.T) {
	sources, err := Sources(".")
	if err != nil {
		t.Fatal(err)
	}
	expected := map[string]bool{IndexName: true}
	for _, src := range sources {
		targets, err := Targets(src)
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range targets {
			m := Module{Name: ModuleName(src), Target: target}
			name := OutputName(m.Name, target)
			expected[name] = true
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				want, err := Compile(context.Background(), src, target)
				if errors.Is(err, ErrNoClang) {
					t.Skipf("SKIPPED: THE PTX IS NOT COMPARED: %v", err)
				}
				if err != nil {
					t.Fatal(err)
				}
				got, err := m.PTX()
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("ptx/%s is not what %s makes of %s: run make cuda-kernels (%v)", name, Clang, src, err)
				}
			})
		}
	}
	files, err := embedded.ReadDir("ptx")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !expected[f.Name()] {
			t.Errorf("ptx/%s has no source", f.Name())
		}
	}
}

// The index is that of the modules' texts.
func TestIndex(t *testing.T) {
	text, err := embedded.ReadFile("ptx/" + IndexName)
	if err != nil {
		t.Fatal(err)
	}
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		ptx, err := all[i].PTX()
		if err != nil {
			t.Fatal(err)
		}
		if all[i].Entries, err = Entries(ptx); err != nil {
			t.Fatalf("%s for %v: %v", all[i].Name, all[i].Target, err)
		}
	}
	if want := Index(all); string(text) != want {
		t.Errorf("ptx/%s is not that of the files beside it: run make cuda-kernels", IndexName)
	}
	files, err := embedded.ReadDir("ptx")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(all)+1 {
		t.Errorf("%d files in ptx, expected the index and its %d modules", len(files), len(all))
	}
	for _, bad := range []string{"a.sm_80 k", "a.sm_80 k many u32", "a.ptx k 32", "a 32 32"} {
		if _, err := parseIndex(bad); err == nil {
			t.Errorf("the index %q was accepted", bad)
		}
	}
}

func TestCompress(t *testing.T) {
	text := bytes.Repeat([]byte("add.f32 %f1, %f2, %f3;\n"), 100000)
	a, err := Compress(text)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := Compress(bytes.Clone(text))
	if !bytes.Equal(a, b) {
		t.Error("one text has two frames")
	}
	if back, err := Decompress(a); err != nil || !bytes.Equal(back, text) {
		t.Errorf("decompressed to %d bytes (%v), expected %d", len(back), err, len(text))
	}
	if _, err := Decompress(a[:len(a)/2]); err == nil {
		t.Error("half a frame was accepted")
	}
}

func TestEntries(t *testing.T) {
	ptx := []byte(`
.visible .entry scale_f32(
	.param .u64 .ptr .align 1 scale_f32_param_0,
	.param .u32 scale_f32_param_1,
	.param .b32 scale_f32_param_2,
	.param .f32 scale_f32_param_3
)
.maxntid 128
.minnctapersm 2
{
	ret;
}
.visible .entry late(
	.param .u32 late_param_0
)
.maxntid 32
{
	griddepcontrol.wait;
	ret;
}
`)
	got, err := Entries(ptx)
	want := []Entry{{"scale_f32", []Param{U64, U32, U32, F32}, 128, false}, {"late", []Param{U32}, 32, true}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("entries %v (%v), expected %v", got, err, want)
	}
	if _, err := Entries(bytes.Replace(ptx, []byte(".u32"), []byte(".b8"), 1)); err == nil {
		t.Error("a structure as a parameter was accepted")
	}
}

// No two kernels of a device have one name, and modules are in the best version that it runs.
func TestEmbedded(t *testing.T) {
	for _, device := range []struct{ sm, driver int }{{70, 11000}, {80, 11040}, {86, 12000}, {90, 12000}, {90, 11080}, {100, 13000}, {120, 13000}} {
		modules, err := For(device.sm, device.driver)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]string{}
		for _, m := range modules {
			if m.Target.SM > device.sm || m.Target.Specific && m.Target.SM != device.sm || m.Target.DriverVersion() > device.driver {
				t.Errorf("%s for %v was chosen for sm_%d and driver %d", m.Name, m.Target, device.sm, device.driver)
			}
			for _, e := range m.Entries {
				if other := seen[e.Name]; other != "" {
					t.Errorf("%s is in %s and %s", e.Name, other, m.Name)
				}
				seen[e.Name] = m.Name
			}
		}
		if seen["layernorm_bf16"] == "" {
			t.Errorf("sm_%d has no layernorm", device.sm)
		}
		// Products of warpgroups exist on compute capability 9.0 alone.
		if has, want := seen["wgmma_check_shared_k64_bf16"] != "", device.sm == 90 && device.driver >= 12000; has != want {
			t.Errorf("sm_%d with driver %d has products of warpgroups: %v", device.sm, device.driver, has)
		}
	}
}

var ptxasLine = regexp.MustCompile(`(?m)Compiling entry function '(\w+)'|(\d+) bytes spill stores, (\d+) bytes spill loads|Used (\d+) registers.*$`)

// What ptxas says where it waits between products of warpgroups, or leaves registers as they were (C7508, C7510, C7514, C7517, C7519 and others).
var ptxasLoss = regexp.MustCompile(`(?m)^.*\(C75\d\d\).*$`)

// NVIDIA's assembler accepts every file, spills no register and lets products of warpgroups run beside the threads. AUTODEV_PTXAS is its path (it needs no GPU; the wheels nvidia-cuda-nvcc have it).
func TestAssembles(t *testing.T) {
	ptxas := os.Getenv("AUTODEV_PTXAS")
	if ptxas == "" {
		t.Skip("SKIPPED: AUTODEV_PTXAS does not name NVIDIA's ptxas")
	}
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		archs := []string{m.Target.String()}
		if m.Target.SM == 80 {
			archs = append(archs, "sm_90") // what an H100 makes of it
		}
		for _, arch := range archs {
			t.Run(m.Name+" for "+arch, func(t *testing.T) {
				ptx, err := m.PTX()
				if err != nil {
					t.Fatal(err)
				}
				file := filepath.Join(t.TempDir(), "in.ptx")
				if err := os.WriteFile(file, ptx, 0o644); err != nil {
					t.Fatal(err)
				}
				out, err := exec.Command(ptxas, "-v", "-arch="+arch, "-o", os.DevNull, file).CombinedOutput()
				if err != nil && strings.Contains(string(out), "is not defined for option 'gpu-name'") {
					t.Skipf("this ptxas does not know %s any more", arch)
				}
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				if loss := ptxasLoss.Find(out); loss != nil {
					t.Errorf("%s", loss)
				}
				name, spilled := "", ""
				for _, found := range ptxasLine.FindAllStringSubmatch(string(out), -1) {
					switch {
					case found[1] != "":
						name = found[1]
					case found[2] != "":
						spilled = found[2] + " and " + found[3]
						if found[2] != "0" || found[3] != "0" {
							t.Errorf("%s spills %s bytes", name, spilled)
						}
					default:
						t.Logf("%-28s %s", name, found[0])
					}
				}
			})
		}
	}
}
