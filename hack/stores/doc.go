// Package stores starts real object stores for tests and the demo: versitygw, which speaks S3, and fake-gcs-server, which speaks
// Google Cloud Storage. They are built once, listen on the loopback, keep their data in a directory, and die with the process that
// started them.
package stores
