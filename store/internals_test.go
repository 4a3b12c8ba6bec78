package store

// ContactViewSQL is the statement of the contact view, for a test of what it looks into.
const ContactViewSQL = contactView
