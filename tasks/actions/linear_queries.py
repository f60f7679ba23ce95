"""GraphQL documents of Linear's actions; a test validates each against the published schema."""

CREATE_ISSUE = """
mutation CreateIssue($input: IssueCreateInput!) {
  issueCreate(input: $input) { issue { id identifier url } }
}
"""

FIND_ISSUE = """
query FindIssue($ids: [ID!]!) {
  issues(filter: { id: { in: $ids } }, first: 2, includeArchived: true) { nodes { id identifier url } }
}
"""

# Linear counts the product of both page sizes: with fifty columns a team, an app could ask only some 80 times an hour.
ISSUES_OF_PULL = """
query IssuesOfPull($title: String!) {
  issues(filter: { title: { startsWith: $title } }, first: 50) {
    nodes {
      id identifier url description state { type }
      team { states(filter: { type: { eq: "completed" } }, first: 10) { nodes { id position } } }
    }
    pageInfo { hasNextPage }
  }
}
"""

UPDATE_ISSUE = """
mutation UpdateIssue($id: String!, $input: IssueUpdateInput!) {
  issueUpdate(id: $id, input: $input) { issue { id identifier url } }
}
"""

ATTACHMENTS_FOR_URL = """
query AttachmentsForUrl($url: String!) {
  attachmentsForURL(url: $url, first: 50) {
    nodes { issue { id identifier url } }
    pageInfo { hasNextPage }
  }
}
"""

CREATE_ATTACHMENT = """
mutation CreateAttachment($input: AttachmentCreateInput!) {
  attachmentCreate(input: $input) { attachment { id url } }
}
"""

CREATE_COMMENT = """
mutation CreateComment($input: CommentCreateInput!) {
  commentCreate(input: $input) { comment { id url } }
}
"""

FIND_COMMENT = """
query FindComment($ids: [ID!]!) {
  comments(filter: { id: { in: $ids } }, first: 2, includeArchived: true) { nodes { id url } }
}
"""
