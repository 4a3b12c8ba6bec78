package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"

	"github.com/musterhq/muster/campaign"
)

const (
	pageSize  = 50 // unless told
	sealBytes = 8
)

// limitOf is the page size that a caller asked for.
func limitOf(asked int) int {
	if asked == 0 {
		return pageSize
	}
	return asked
}

// encodeCursor writes the position after which the next page begins. list names the
// list with its filters; the cursor is refused for any other.
func encodeCursor(list string, position any) (string, error) {
	text, err := json.Marshal(position)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(append(cursorSeal(list, text), text...)), nil
}

// decodeCursor reads a cursor of that list into position and reports whether there
// is one; CodeInvalidCursor when it is damaged or of another list.
func decodeCursor(list, cursor string, position any) (bool, error) {
	if cursor == "" {
		return false, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(raw) < sealBytes || !bytes.Equal(raw[:sealBytes], cursorSeal(list, raw[sealBytes:])) ||
		json.Unmarshal(raw[sealBytes:], position) != nil {
		return false, campaign.Errorf(campaign.CodeInvalidCursor, "the cursor is not one of this list; begin again without a cursor")
	}
	return true, nil
}

// cursorSeal detects damage and use with another list. It keeps no secret: whatever a
// cursor says, the list is limited to what the caller may read.
func cursorSeal(list string, text []byte) []byte {
	sum := sha256.Sum256(append([]byte(list+"\x00"), text...))
	return sum[:sealBytes]
}
