# Puts a file system together and runs a container in it: launch.sh ROOT PROGRAM HOSTS USER GROUP [SOURCE:TARGET:ro|rw]... -- ARGS...
# It runs in a mount namespace of its own, so nothing of this is seen outside.
set -eu
root=$1 program=$2 hosts=$3 user=$4 group=$5
shift 5
mount -t tmpfs -o size=4m,mode=0755 none "$root"
cd "$root"
mkdir -p usr/local/bin usr/local/lib etc/ssl proc dev tmp
for part in bin sbin lib lib64 share; do
    [ ! -e "/usr/$part" ] || { mkdir "usr/$part" && mount --bind -o ro "/usr/$part" "usr/$part"; }
done
for link in bin sbin lib lib64; do
    [ ! -L "/$link" ] || ln -s "usr/$link" "$link"
done
touch usr/local/bin/mllm4rec etc/hosts
mount --bind -o ro "$program" usr/local/bin/mllm4rec
mount --bind -o ro "$hosts" etc/hosts
mount --bind -o ro /etc/ssl etc/ssl
mount --rbind /proc proc
for device in null zero full random urandom; do
    touch "dev/$device" && mount --bind "/dev/$device" "dev/$device"
done
while [ "$1" != "--" ]; do
    source=${1%%:*} rest=${1#*:}
    target=${rest%%:*} mode=${rest#*:}
    mkdir -p ".$target"
    case $source in
        tmpfs=*) mount -t tmpfs -o "size=${source#tmpfs=},mode=0777" none ".$target" ;;
        *) mount --bind -o "$mode" "$source" ".$target" ;;
    esac
    shift
done
shift
mount -o remount,ro "$root"
exec chroot "$root" /usr/bin/setpriv --reuid "$user" --regid "$group" --clear-groups --no-new-privs \
    --inh-caps=-all --bounding-set=-all -- /usr/local/bin/mllm4rec "$@"
