// Package volumes has tests of daemons whose volumes have limits. They run in the virtual machine, against an API server outside of it.
package volumes
