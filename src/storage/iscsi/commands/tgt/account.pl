# perl -e .. USER: makes tgtd's account of this name anew; the secret is the first line of standard input.
# Speaks tgtd's own protocol (usr/tgtadm.h of tgt 1.0: struct tgtadm_req, then parameters), because tgtadm wants the secret
# in its arguments, where every user of the host could read it.
use strict; use warnings; use Socket;
my $user = shift @ARGV;
my $secret = <STDIN>;
die "no secret on standard input\n" unless defined $secret;
chomp $secret;
sub request {
    my ($operation, $text) = @_;
    my $body = "$text\0";
    my $length = 120 + length $body;
    # Mode 7: accounts. Operations: 0 new, 1 delete. The rest is what tgtadm sends for them.
    my $head = pack 'L L a64 L l Q Q L L L L L L', 7, $operation, 'iscsi', $length, -1, 0, 0, 0, 0, 0, 0, 0, 0;
    socket my $socket, AF_UNIX, SOCK_STREAM, 0 or die "socket: $!\n";
    my $path = '/run/tgtd/socket.0';
    connect $socket, sockaddr_un($path) or die "tgtd does not answer at $path: $!\n";
    my $whole = $head . $body;
    (syswrite $socket, $whole) == length $whole or die "tgtd took half a request\n";
    my $answer = '';
    while (length $answer < 8) {
        sysread $socket, $answer, 8 - length $answer, length $answer or die "tgtd gave no answer\n";
    }
    return (unpack 'L L', $answer)[0];
}
# An account that is not there cannot be removed; one that could not be removed keeps the new one from being made.
request(1, "user=$user");
my $error = request(0, "user=$user,password=$secret");
die "tgtd refused account $user: error $error\n" if $error != 0;
