// Command cmd runs tests, a command or a shell in a virtual machine.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"wsdaemon.dev/ws-daemon/hack/vm"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	root := &cobra.Command{
		Use:           "vm",
		Short:         "A virtual machine with XFS, ext4 and LVM disks, for tests.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(prepareCommand(), testCommand(), shellCommand(), runCommand(), demoCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		stop()
		os.Exit(1) //nolint:gocritic // The deferred stop was just called.
	}
}

// settings are the values of flags.
type settings struct {
	vm.TestOptions
	accel    string
	disks    []string
	packages []string
	deadline time.Duration
}

// add declares the flags that all machines have.
func (s *settings) add(cmd *cobra.Command, disks []string) {
	flags := cmd.Flags()
	flags.StringVar(&s.accel, "accel", string(vm.Auto), "kvm, tcg, or auto: kvm where it boots")
	flags.IntVar(&s.Memory, "memory", 2048, "memory in MiB")
	flags.IntVar(&s.CPUs, "cpus", 2, "number of processors")
	flags.StringSliceVar(&s.disks, "disks", disks, "disks to prepare")
	flags.StringVar(&s.KeepDisks, "keep-disks", "", "existing directory that keeps the disks (default: they are removed)")
	flags.StringVar(&s.Results, "results", filepath.Join("bin", "vm"), "directory for results and the console's log")
}

// addPackages declares the flag for the tests that the machine has.
func (s *settings) addPackages(cmd *cobra.Command) {
	packages := vm.Packages()
	all := make([]string, 0, len(packages))
	for _, p := range packages {
		all = append(all, p.Path)
	}
	cmd.Flags().StringSliceVar(&s.packages, "packages", all, "packages whose tests are built")
}

// addDeadline declares the flag for the time after which a machine is killed.
func (s *settings) addDeadline(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&s.deadline, "deadline", 2*time.Hour, "time after which the machine is killed; one that hangs is found earlier")
}

// options gives what the flags say.
func (s *settings) options(cmd *cobra.Command) (vm.TestOptions, error) {
	o := s.TestOptions
	o.Log, o.Output = cmd.ErrOrStderr(), cmd.OutOrStdout()
	var err error
	if o.Accel, err = vm.ParseAccel(s.accel); err != nil {
		return o, err
	}
	for _, name := range s.disks {
		disk, err := vm.ParseDisk(name)
		if err != nil {
			return o, err
		}
		o.Disks = append(o.Disks, disk)
	}
	for _, path := range s.packages {
		o.Packages = append(o.Packages, packageAt(path))
	}
	return o, nil
}

// packageAt gives a package of the list, or one that is not in it.
func packageAt(path string) vm.Package {
	path = filepath.ToSlash(filepath.Clean(path))
	packages := vm.Packages()
	if n := slices.IndexFunc(packages, func(p vm.Package) bool { return p.Path == path }); n >= 0 {
		return packages[n]
	}
	return vm.Package{Path: path}
}

// use makes what the machine needs and then has something done with it, until the deadline if the command has one.
func (s *settings) use(cmd *cobra.Command, do func(ctx context.Context, image *vm.Image, o vm.TestOptions) error) error {
	o, err := s.options(cmd)
	if err != nil {
		return err
	}
	image, err := vm.Prepare(cmd.Context(), o.Log)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if s.deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.deadline, fmt.Errorf("it did not end within %s", s.deadline))
		defer cancel()
	}
	return do(ctx, image, o)
}

func prepareCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "prepare",
		Short: "Make the kernel and the root disk if they are missing, and print their directory",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			image, err := vm.Prepare(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), image.Dir())
			return err
		},
	}
}

func testCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "test [flags] [-- TEST_ARGUMENT...]",
		Short: "Run the tests of packages once on every disk",
		Long: "Builds the tests of packages and runs them in the machine, with TMPDIR on each of the disks.\n" +
			"Arguments such as -test.v or -test.run=NAME go to the test programs.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.use(cmd, func(ctx context.Context, image *vm.Image, o vm.TestOptions) error {
				o.Args = args
				return image.Test(ctx, o)
			})
		},
	}
	s.add(cmd, diskNames())
	s.addPackages(cmd)
	s.addDeadline(cmd)
	cmd.Flags().BoolVar(&s.Long, "long", false, "run the tests that take long, too")
	cmd.Flags().DurationVar(&s.Timeout, "timeout", 20*time.Minute, "time that one test program may take")
	return cmd
}

func shellCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "shell",
		Short: "Run an interactive shell in the machine",
		Long: "Runs a shell as root in /vm/src, a copy of the working tree. The test programs are /vm/bin/PACKAGE/test,\n" +
			"the disks are in /disks. Ctrl-A X cuts the power.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.use(cmd, func(ctx context.Context, image *vm.Image, o vm.TestOptions) error { return image.TestShell(ctx, o) })
		},
	}
	s.add(cmd, diskNames())
	s.addPackages(cmd)
	return cmd
}

func runCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARGUMENT...]",
		Short: "Run one command in the machine",
		Long:  "Runs a command as root. Files that it writes into $WS_DAEMON_VM_RESULTS come back to RESULTS/results/run.",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.use(cmd, func(ctx context.Context, image *vm.Image, o vm.TestOptions) error {
				return runOne(ctx, image, o.Options, args, s.deadline)
			})
		},
	}
	s.add(cmd, nil)
	s.addDeadline(cmd)
	return cmd
}

func demoCommand() *cobra.Command {
	var s settings
	var volume string
	cmd := &cobra.Command{
		Use:   "demo --volume quota|lvm",
		Short: "Run the demo in the machine, with volumes that have limits",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.use(cmd, func(ctx context.Context, image *vm.Image, o vm.TestOptions) error {
				return image.Demo(ctx, o.Options, volume, s.deadline)
			})
		},
	}
	s.add(cmd, nil)
	s.addDeadline(cmd)
	cmd.Flags().StringVar(&volume, "volume", "", "driver of the volumes: quota or lvm")
	return cmd
}

func runOne(ctx context.Context, image *vm.Image, o vm.Options, command []string, timeout time.Duration) error {
	job := vm.Job{Name: "run", Dir: "/", Command: command, Timeout: timeout}
	results, err := image.Run(ctx, o, []vm.Job{job})
	if err != nil {
		return err
	}
	if code := results[0].Code; code != 0 {
		return fmt.Errorf("%s ended with exit code %d", command[0], code)
	}
	return nil
}

func diskNames() []string {
	disks := vm.Disks()
	names := make([]string, len(disks))
	for i, disk := range disks {
		names[i] = string(disk)
	}
	return names
}
