"""The served part of Linear's schema. A test compares it with the published one."""

from graphql import build_schema

SDL = """
scalar DateTime
scalar JSONObject

type Query {
  attachmentsForURL(after: String, first: Int, includeArchived: Boolean, url: String!): AttachmentConnection!
  comment(id: String): Comment!
  comments(after: String, filter: CommentFilter, first: Int, includeArchived: Boolean): CommentConnection!
  issue(id: String!): Issue!
  issues(after: String, filter: IssueFilter, first: Int, includeArchived: Boolean): IssueConnection!
  organization: Organization!
  team(id: String!): Team!
  teams(after: String, first: Int, includeArchived: Boolean): TeamConnection!
  viewer: User!
}

type Mutation {
  attachmentCreate(input: AttachmentCreateInput!): AttachmentPayload!
  attachmentLinkURL(id: String, issueId: String!, title: String, url: String!): AttachmentPayload!
  commentCreate(input: CommentCreateInput!): CommentPayload!
  issueCreate(input: IssueCreateInput!): IssuePayload!
  issueDelete(id: String!): IssueArchivePayload!
  issueUpdate(id: String!, input: IssueUpdateInput!): IssuePayload!
}

input CommentFilter { id: IDComparator }
input IDComparator { eq: ID, in: [ID!] }
input IssueFilter { id: IssueIDComparator, title: StringComparator }
input IssueIDComparator { eq: ID, in: [ID!] }
input StringComparator { eq: String, startsWith: String }
input WorkflowStateFilter { type: StringComparator }

input AttachmentCreateInput {
  id: String
  issueId: String!
  metadata: JSONObject
  subtitle: String
  title: String!
  url: String!
}

input CommentCreateInput {
  body: String
  id: String
  issueId: String
}

input IssueCreateInput {
  assigneeId: String
  description: String
  id: String
  labelIds: [String!]
  priority: Int
  teamId: String!
  title: String
}

input IssueUpdateInput {
  description: String
  stateId: String
  title: String
}

type AttachmentPayload { attachment: Attachment!, lastSyncId: Float!, success: Boolean! }
type CommentPayload { comment: Comment!, lastSyncId: Float!, success: Boolean! }
type IssuePayload { issue: Issue, lastSyncId: Float!, success: Boolean! }
type IssueArchivePayload { entity: Issue, lastSyncId: Float!, success: Boolean! }

type PageInfo { endCursor: String, hasNextPage: Boolean!, hasPreviousPage: Boolean!, startCursor: String }
type AttachmentConnection { nodes: [Attachment!]!, pageInfo: PageInfo! }
type CommentConnection { nodes: [Comment!]!, pageInfo: PageInfo! }
type IssueConnection { nodes: [Issue!]!, pageInfo: PageInfo! }
type WorkflowStateConnection { nodes: [WorkflowState!]!, pageInfo: PageInfo! }
type TeamConnection { nodes: [Team!]!, pageInfo: PageInfo! }

type Attachment {
  createdAt: DateTime!
  creator: User
  id: ID!
  issue: Issue!
  metadata: JSONObject!
  subtitle: String
  title: String!
  updatedAt: DateTime!
  url: String!
}

type Comment {
  body: String!
  createdAt: DateTime!
  id: ID!
  issue: Issue
  updatedAt: DateTime!
  url: String!
  user: User
}

type Issue {
  archivedAt: DateTime
  assignee: User
  attachments(after: String, first: Int): AttachmentConnection!
  comments(after: String, first: Int): CommentConnection!
  createdAt: DateTime!
  creator: User
  description: String
  id: ID!
  identifier: String!
  labelIds: [String!]!
  number: Float!
  priority: Float!
  state: WorkflowState!
  team: Team!
  title: String!
  trashed: Boolean
  updatedAt: DateTime!
  url: String!
}

type Organization {
  createdAt: DateTime!
  id: ID!
  name: String!
  urlKey: String!
}

type Team {
  createdAt: DateTime!
  id: ID!
  key: String!
  name: String!
  organization: Organization!
  states(after: String, filter: WorkflowStateFilter, first: Int): WorkflowStateConnection!
}

type WorkflowState {
  createdAt: DateTime!
  id: ID!
  name: String!
  position: Float!
  team: Team!
  type: String!
}

type User {
  active: Boolean!
  app: Boolean!
  createdAt: DateTime!
  displayName: String!
  email: String!
  id: ID!
  isMe: Boolean!
  name: String!
  organization: Organization!
}
"""

# Names in our operations for arguments whose published names are builtins or not in Python's style.
ARGUMENTS = {"filter": "chosen", "id": "reference", "includeArchived": "archived", "input": "fields"}

SCHEMA = build_schema(SDL)

for root in (SCHEMA.query_type, SCHEMA.mutation_type, SCHEMA.get_type("Team")):
    for field in getattr(root, "fields", {}).values():
        for name, argument in field.args.items():
            argument.out_name = ARGUMENTS.get(name)
