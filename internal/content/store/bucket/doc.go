// Package bucket holds what stores in a bucket have in common, whoever serves it: the keys below a prefix, the proof that there is a
// store, transport and its deadlines, and the settings in a URL. The packages s3 and gcs bring the requests.
package bucket
