// What the page offers to whom. The server decides; this only spares people buttons that refuse.

const roleOf = (session) => (session.open || !session.user ? "admin" : session.user.role);

/** May start cycles, upload, and change projects. */
export const mayChange = (session) => ["engineer", "admin"].includes(roleOf(session));

/** May make and revoke keys. */
export const mayManageKeys = (session) => roleOf(session) === "admin";

/** May label. */
export const mayAnnotate = (session) => roleOf(session) !== "viewer";
