package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
)

// What a record ends with: the hash of all before it, as a field of the JSON object that the record is.
const (
	sumBegin  = `,"sha256":"`
	sumEnd    = "\"}\n"
	sumLength = len(sumBegin) + 2*sha256.Size + len(sumEnd)
)

// AppendSum makes a record of a JSON object that has fields: it adds the hash of itself, so that every bit that changes is noticed.
func AppendSum(object []byte) []byte {
	body := bytes.TrimSuffix(object, []byte("}"))
	return append(body, sumOf(body)...)
}

// CheckSum says whether a record is as it was written.
func CheckSum(record []byte) error {
	if len(record) < sumLength || !bytes.HasPrefix(record[len(record)-sumLength:], []byte(sumBegin)) {
		return errors.New("it does not end with its checksum")
	}
	if body, sum := record[:len(record)-sumLength], record[len(record)-sumLength:]; sumOf(body) != string(sum) {
		return errors.New("the checksum differs")
	}
	return nil
}

func sumOf(body []byte) string {
	sum := sha256.Sum256(body)
	return sumBegin + hex.EncodeToString(sum[:]) + sumEnd
}
