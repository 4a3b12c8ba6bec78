package store_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

// The database refuses exactly the transitions that campaign.ContactState refuses.
func TestTransitionsAreTheSameInTheDatabase(t *testing.T) {
	st, ctx := open(t), context.Background()
	id := uuid.NewString()
	_, err := st.Pool().Exec(ctx, `SELECT create_campaign_partitions($1)`, id)
	require.NoError(t, err)
	_, err = st.Pool().Exec(ctx, `SELECT create_campaign_partitions($1)`, id)
	require.NoError(t, err, "twice")
	seq := 0
	for _, from := range campaign.ContactStates() {
		for _, to := range campaign.ContactStates() {
			seq++
			contact := uuid.NewString()
			_, err := st.Pool().Exec(ctx, `INSERT INTO contact (campaign_id, id, customer_id, not_after, seq, wave, shard, channel, tier, state, reason)
				VALUES ($1, $2, $3, now(), $4, 1, 0, 'sms', 'core', $5, 'budget')`, id, contact, uuid.NewString(), seq, from)
			require.NoError(t, err)
			// The budget may pay for whom it did not pay for. The proof that some transitions need: an intent whose message did not leave.
			_, err = st.Pool().Exec(ctx, `INSERT INTO contact_attempt (campaign_id, contact_id, epoch, provider, outcome) VALUES ($1, $2, 0, 'sms', 'not_sent')`, id, contact)
			require.NoError(t, err)
			_, err = st.Pool().Exec(ctx, `UPDATE contact SET state = $2 WHERE id = $1`, contact, to)
			if from == to || from.CanFollow(to) {
				require.NoError(t, err, "%s → %s", from, to)
			} else {
				require.Error(t, err, "%s → %s", from, to)
			}
		}
	}
}

// Sending needs an intent, and going back needs proof that nothing left.
func TestSendingNeedsAnIntent(t *testing.T) {
	st, ctx := open(t), context.Background()
	id, contact := uuid.NewString(), uuid.NewString()
	_, err := st.Pool().Exec(ctx, `SELECT create_campaign_partitions($1)`, id)
	require.NoError(t, err)
	_, err = st.Pool().Exec(ctx, `INSERT INTO contact (campaign_id, id, customer_id, not_after, seq, wave, shard, channel, tier, state, epoch)
		VALUES ($1, $2, $3, now(), 1, 1, 0, 'sms', 'core', 'claimed', 4)`, id, contact, uuid.NewString())
	require.NoError(t, err)
	// The rule holds for a statement that names the table and for one that names the partition.
	partition := "contact_" + strings.ReplaceAll(id, "-", "")
	set := func(state string) error {
		for _, table := range []string{"contact", partition} {
			tx, err := st.Pool().Begin(ctx)
			require.NoError(t, err)
			_, err = tx.Exec(ctx, `UPDATE `+table+` SET state = $2 WHERE id = $1`, contact, state)
			require.NoError(t, tx.Rollback(ctx))
			if err != nil {
				_, other := st.Pool().Exec(ctx, `UPDATE `+partition+` SET state = $2 WHERE id = $1`, contact, state)
				require.Error(t, other, "the table refuses what the partition takes")
				return err
			}
		}
		_, err := st.Pool().Exec(ctx, `UPDATE contact SET state = $2 WHERE id = $1`, contact, state)
		return err
	}
	require.Error(t, set("sending"))
	_, err = st.Pool().Exec(ctx, `INSERT INTO contact_attempt (campaign_id, contact_id, epoch, provider) VALUES ($1, $2, 3, 'sms')`, id, contact)
	require.NoError(t, err)
	require.Error(t, set("sending"), "an intent of another epoch")
	_, err = st.Pool().Exec(ctx, `INSERT INTO contact_attempt (campaign_id, contact_id, epoch, provider) VALUES ($1, $2, 4, 'sms')`, id, contact)
	require.NoError(t, err)
	require.NoError(t, set("sending"))
	require.Error(t, set("planned"), "it may have left")
	_, err = st.Pool().Exec(ctx, `UPDATE contact_attempt SET outcome = 'not_sent' WHERE contact_id = $1 AND epoch = 4`, contact)
	require.NoError(t, err)
	require.NoError(t, set("planned"))
}
