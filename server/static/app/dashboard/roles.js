// What the page offers to whom. The server decides; this only spares people buttons that refuse.

/** May start cycles, upload, change projects, and take data and models out. */
export const mayChange = ({ user }) => ["engineer", "admin"].includes(user.role);

/** May make projects: a key for some only would not see the new one. */
export const mayCreate = (session) => mayChange(session) && session.user.projects === null;

/** May make and revoke keys. */
export const mayManageKeys = ({ user }) => user.role === "admin";

/** May label. */
export const mayAnnotate = ({ user }) => user.role !== "viewer";
