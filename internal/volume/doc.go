// Package volume keeps one directory per workspace on the node's disk, and knows where the content in it is.
//
// A [Driver] makes, limits, measures and removes volumes; package volumetest has the tests that every driver passes.
// [Directory] is the driver of plain directories:
//
//	<root>/<id>/                 the volume, 0755, owned by the daemon
//	<root>/<id>/content/         what users see; its owner and mode are the workspace's
//	<root>/<id>/.ws/             0711, owned by the daemon; users never reach it
//	<root>/<id>/.ws/marker       whose content this is, under which claim, and which directory is the finished content
//	<root>/<id>/.ws/volume.json  the size that was asked for
//	<root>/<id>/.ws/staging/     content that is being filled
//	<root>/<id>/.ws/withdrawn/   content that was taken away from its users
//	<root>/.trash/<id>.<random>  what is being removed
//
// The directory .ws is 0711 and not 0700 because git runs with the owner's uid in the staging directory below it.
//
// Content is hostile: it is never reached by a path, only relative to a descriptor of the directory above it, one
// component at a time and without following symbolic links or mounts.
package volume
