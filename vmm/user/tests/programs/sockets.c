/* Sockets. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    int pair[2];
    socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
    struct iovec parts[2] = {{"hello ", 6}, {"there", 5}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    int pipes[2];
    pipe(pipes);
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr header;
    } control = {0};
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &pipes[1], sizeof(int));
    printf("sendmsg %zd\n", sendmsg(pair[0], &message, 0));
    char text[32] = {0};
    struct iovec place = {text, 8};
    struct msghdr received = {.msg_iov = &place, .msg_iovlen = 1};
    memset(&control, 0, sizeof control);
    received.msg_control = control.bytes;
    received.msg_controllen = sizeof control.bytes;
    printf("recvmsg %zd", recvmsg(pair[1], &received, 0));
    printf(" '%s' truncated %d control %zu\n", text, !!(received.msg_flags & MSG_TRUNC), received.msg_controllen);
    int passed;
    memcpy(&passed, CMSG_DATA(CMSG_FIRSTHDR(&received)), sizeof(int));
    write(passed, "through", 7);
    char got[8] = {0};
    read(pipes[0], got, 7);
    printf("passed file %s\n", got);

    struct mmsghdr several[2] = {
        {.msg_hdr = {.msg_iov = &parts[0], .msg_iovlen = 1}},
        {.msg_hdr = {.msg_iov = &parts[1], .msg_iovlen = 1}},
    };
    printf("sendmmsg %d %u %u\n", sendmmsg(pair[0], several, 2, 0), several[0].msg_len, several[1].msg_len);
    char buffers[2][16] = {{0}};
    struct iovec places[2] = {{buffers[0], 15}, {buffers[1], 15}};
    struct mmsghdr answers[2] = {
        {.msg_hdr = {.msg_iov = &places[0], .msg_iovlen = 1}},
        {.msg_hdr = {.msg_iov = &places[1], .msg_iovlen = 1}},
    };
    int count = recvmmsg(pair[1], answers, 2, 0, NULL);
    printf("recvmmsg %d '%s' '%s'\n", count, buffers[0], buffers[1]);

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    printf("setsockopt %d\n", setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    printf("bind %d\n", bind(listener, (void *)&address, sizeof address));
    listen(listener, 3);
    socklen_t len = sizeof address;
    getsockname(listener, (void *)&address, &len);
    printf("name %d %d %s\n", len, address.sin_port != 0, inet_ntoa(address.sin_addr));
    if (fork() == 0) {
        int client = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(client, (void *)&address, sizeof address))
            return 1;
        send(client, "question", 8, 0);
        char answer[32] = {0};
        ssize_t n = recv(client, answer, sizeof answer, 0);
        return n == 6 && !strcmp(answer, "answer") ? 0 : 2;
    }
    struct sockaddr_in peer;
    len = sizeof peer;
    int server = accept4(listener, (void *)&peer, &len, SOCK_NONBLOCK);
    struct pollfd polled = {server, POLLIN, 0};
    poll(&polled, 1, 5000);
    char question[32] = {0};
    len = sizeof peer;
    ssize_t n = recvfrom(server, question, sizeof question, 0, NULL, NULL);
    printf("received %zd %s from %s\n", n, question, inet_ntoa(peer.sin_addr));
    printf("again %zd %s\n", recv(server, question, 1, 0), strerror(errno));
    send(server, "answer", 6, MSG_NOSIGNAL);
    int status;
    wait(&status);
    printf("client %d\n", WEXITSTATUS(status));
    int option;
    len = sizeof option;
    getsockopt(server, IPPROTO_TCP, TCP_NODELAY, &option, &len);
    printf("option %d %u\n", option, len);
    printf("shutdown %d\n", shutdown(server, SHUT_RDWR));

    struct sockaddr_un name = {.sun_family = AF_UNIX};
    snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "cairn-%d", getpid());
    int datagram = socket(AF_UNIX, SOCK_DGRAM, 0), other = socket(AF_UNIX, SOCK_DGRAM, 0);
    len = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name.sun_path + 1);
    printf("abstract %d\n", bind(datagram, (void *)&name, len));
    printf("sendto %zd\n", sendto(other, "to it", 5, 0, (void *)&name, len));
    char text2[16] = {0};
    printf("recv %zd %s\n", recv(datagram, text2, 15, 0), text2);
    printf("bad %d %s\n", bind(listener, (void *)8, 16), strerror(errno));
    return 0;
}
